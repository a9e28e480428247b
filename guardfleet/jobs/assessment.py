"""What labels say of a job's verdicts, and of what a policy does: estimates for all texts, from those that samples asked for.

A label that no sample asked for takes no part: nobody knows how many texts it stands for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from guardfleet.domain.labels import counting
from guardfleet.domain.verdict import Severity
from guardfleet.errors import RejectedError
from guardfleet.policy.document import Action
from guardfleet.sampling.estimates import Estimate, Weights, weights
from guardfleet.sampling.figures import UNSAFE_FROM, by_action, figures
from guardfleet.sampling.population import Mask, Places
from guardfleet.store import verdicts
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels, samples
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database

NO_ACTION = len(Action)  # as simulation.NOTHING
AT_ONCE = 1000
NO_VERDICTS = (
    "{} did not ask the guard, so it has no verdicts to evaluate: `guardfleet evaluate FILE --detector NAME` evaluates one of its "
    "detectors ({}) on labelled rows."
)
Figures = Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Labelled:
    """The texts of a job whose label a sample asked for, in input order: once for each such sample, with its weight."""

    seqs: Places
    severity: Places  # of the label that counts
    weights: Weights
    slices: Sequence[str | None]


@dataclass(frozen=True)
class Assessment:
    """How good the verdicts of a job's `texts` are, from `by_design` labelled texts of `labelled`; figures by reading."""

    texts: int
    labelled: int
    by_design: int
    errors: int  # of all texts, without a verdict: in the figures they count as wrong
    errors_labelled: int
    readings: Mapping[str, Figures]
    slices: Mapping[str, "Slice"]


class Slice(NamedTuple):
    """The same of the texts of one slice, from so many labels."""

    by_design: int
    readings: Mapping[str, Figures]


@dataclass
class Consequences:
    """What an old and a new policy do with labelled texts, gathered shard by shard."""

    of_jobs: Mapping[int, Labelled]
    parts: list[tuple[Any, Any, Any, Weights]] = field(default_factory=list)

    def note(self, job_id: int, first_seq: int, old: Any, new: Any) -> None:
        """Note the actions of a shard's texts that are labelled."""
        known = self.of_jobs.get(job_id)
        if known is None:
            return
        low, high = np.searchsorted(known.seqs, (first_seq, first_seq + len(new)))
        if low == high:
            return
        here, at = slice(low, high), known.seqs[low:high] - first_seq
        of = Weights(known.weights.each[here], known.weights.chance[here])
        self.parts.append((old[at], new[at], known.severity[here], of))

    def as_dict(self) -> dict[str, Any] | None:
        """Return the shares of harmful and benign texts by action, old and new; None without labels."""
        if not self.parts:
            return None
        old, new, severity = (np.concatenate([part[at] for part in self.parts]) for at in range(3))
        of = Weights(*(np.concatenate([getattr(part[3], name) for part in self.parts]) for name in ("each", "chance")))
        words = {int(action): action.label for action in Action}
        shares = {
            "old": by_action(old, severity, of, words | {NO_ACTION: "none"}),
            "new": by_action(new, severity, of, words),
        }
        groups = {
            group: {when: {action: one and one.as_dict() for action, one in found[group].items()} for when, found in shares.items()}
            for group in shares["new"]
        }
        return {"labels": len(of), "jobs": len(self.of_jobs), **groups}


def consequences(db: Database, scope: Scope) -> Consequences:
    """Read the labels of the scope, ready to note actions."""
    jobs = labels.jobs_asked(db, scope.tenant_id, job_id=scope.job_id, since=scope.since)
    return Consequences({job: _labelled(db, job, n_texts=n) for job, n in jobs.items()})


def assess(db: Database, job: JobView) -> Assessment:
    """Estimate how good the job's verdicts are. A text whose verdict is gone cannot be: they go together with their labels.

    Raises RejectedError for a job that has no verdicts because it did not ask the guard.
    """
    if not job.asks_guard:
        raise RejectedError(NO_VERDICTS.format(job.label, ", ".join(job.detectors or ())))
    known = _labelled(db, job.id, n_texts=job.done)
    said = np.full(len(known.seqs), Severity.ERROR, np.int64)
    for start in range(0, len(known.seqs), AT_ONCE):
        seqs = known.seqs[start : start + AT_ONCE].tolist()
        found = {row.seq: row.judgement.severity for row in verdicts.of_texts(db, job.id, job.day, list(dict.fromkeys(seqs))).rows}
        said[start : start + AT_ONCE] = [found.get(seq, Severity.ERROR) for seq in seqs]
    return Assessment(
        job.done,
        labels.labelled(db, job.id),
        len(set(known.seqs.tolist())),
        job.error,
        len(set(known.seqs[said == Severity.ERROR].tolist())),
        _readings(said, known, np.ones(len(said), bool)),
        dict(_slices(said, known)),
    )


def _slices(said: Places, known: Labelled) -> Iterator[tuple[str, Slice]]:
    names = np.array(known.slices, object)
    for name in sorted({name for name in known.slices if name is not None}):
        among = names == name
        yield name, Slice(len(set(known.seqs[among].tolist())), _readings(said, known, among))


def _readings(said: Places, known: Labelled, among: Mask) -> Mapping[str, Figures]:
    of = Weights(known.weights.each[among], known.weights.chance[among])
    return {reading: figures(said[among], known.severity[among], of, reading=reading) for reading in UNSAFE_FROM}


def _labelled(db: Database, job_id: int, *, n_texts: int) -> Labelled:
    asked = sorted(labels.asked_for(db, job_id), key=lambda one: (one.seq, one.sample_id))
    meant = [counting(one.labels) for one in asked]
    return Labelled(
        np.array([one.seq for one in asked], np.int64),
        np.array([one.severity for one in meant if one is not None], np.int64),
        weights(
            np.array([one.sample_id for one in asked], np.int64),
            np.array([one.probability for one in asked], np.float64),
            drawn=samples.sizes(db, job_id),
            n_texts=n_texts,
        ),
        [one.slice for one in asked],
    )

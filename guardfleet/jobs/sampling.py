"""Draw a sample of a job's texts to be labelled, and read one with what its verdicts say."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from guardfleet.domain import ids
from guardfleet.domain.decision import Decision
from guardfleet.domain.designs import DISAGREEMENT, SLICE, UNCERTAIN
from guardfleet.errors import RejectedError
from guardfleet.jobs.redecide import groups
from guardfleet.sampling import designs
from guardfleet.sampling.designs import Plan
from guardfleet.sampling.population import Population, Strata, completed, doubts
from guardfleet.security.encryption import Keyring
from guardfleet.store import verdicts
from guardfleet.store.jobs import texts
from guardfleet.store.jobs.retries import Places
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import samples
from guardfleet.store.labels.samples import Drawn, Sample
from guardfleet.store.policy import decisions
from guardfleet.store.policy.decisions import Reads, Scope
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.page import Content

MOST_TEXTS = 100_000  # of one sample: more than anybody labels
MOST_SLICES = 1_000
SLICE_CHARS = 100  # of a slice's name that are kept
AGREES, POLICIES, MODELS = 0, 1, 2
DISAGREEMENTS = ("agrees", "policies_differ", "second_model_asked")
NOTHING_TO_COMPARE = (
    "nothing disagrees in {}: no shadow policy has decided of its texts beside the policy in force, and no second model was asked."
)

NOTHING_IS_UNCERTAIN = (
    "{} did not ask the guard, so no text of it has probabilities to be uncertain of: draw it by random, or by slice."
)


@dataclass
class _Columns:
    """What was read of the texts so far, a part for each shard, by its first text."""

    doubt: dict[int, Any] = field(default_factory=dict)
    slices: dict[int, Any] = field(default_factory=dict)
    disagreement: dict[int, Any] = field(default_factory=dict)
    names: dict[str | None, int] = field(default_factory=dict)

    def slice_codes(self, values: Sequence[str | None]) -> Any:
        """Return a number for the slice of each text."""
        names = self.names
        return np.fromiter((names.setdefault(value and value[:SLICE_CHARS], len(names)) for value in values), np.int32, len(values))


def plan_of(n: int, by: Sequence[str], *, slice_key: str | None, seed: int | None) -> Plan:
    """Return how to draw; without a seed, one of chance. Raises RejectedError."""
    if not 0 < n <= MOST_TEXTS:
        raise RejectedError(f"n must be between 1 and {MOST_TEXTS:,}.", param="n")
    return Plan.of(n, by, secrets.randbits(32) if seed is None else seed, slice_key=slice_key)


def draw(
    db: Database, job: JobView, plan: Plan, *, slice_key: str | None, also: Callable[..., None] = lambda connection, public_id: None
) -> Sample:
    """Draw a sample of an ended job and store it. Raises RejectedError if its texts cannot be drawn so."""
    if not job.state.is_final:
        raise RejectedError(f"{job.label} has not ended: a sample of it would be one of the texts that happen to be done.")
    if UNCERTAIN in plan.by and not job.asks_guard:
        raise RejectedError(NOTHING_IS_UNCERTAIN.format(job.label), param="by")
    population = _population(db, job, slice_key=slice_key, compares=DISAGREEMENT in plan.by)
    drawn = designs.draw(population, plan)
    strata = population.slices or population.disagreement
    names = [None] * len(drawn.places) if strata is None else [strata.names[code] for code in strata.codes[drawn.places].tolist()]
    chosen = list(zip(population.seqs[drawn.places].tolist(), drawn.probability.tolist(), names, strict=True))
    asked = {"n": plan.n, "by": list(plan.by), "slice": slice_key if SLICE in plan.by else None, "population": len(population)}
    return samples.create(db, job, asked, chosen, seed=plan.seed, also=also)


def _population(db: Database, job: JobView, *, slice_key: str | None, compares: bool) -> Population:
    found, has_second = _Columns(), compares and samples.second_model(db, job)
    has_shadow = False
    for pieces in groups(db, Scope(job.tenant_id, job.id)):
        for piece in pieces:
            has_shadow |= _read(db, piece, found, slice_key=slice_key, compares=compares)
    firsts = sorted(found.doubt)
    if not firsts:
        raise RejectedError(f"{job.label} has no verdicts to draw from.")
    if compares and not has_second and not has_shadow:
        raise RejectedError(NOTHING_TO_COMPARE.format(job.label), param="by")
    seqs = np.concatenate([np.arange(first, first + len(found.doubt[first]), dtype=np.int32) for first in firsts])
    is_there = ~np.isin(seqs, samples.erased(db, job))
    if not is_there.any():
        raise RejectedError(f"all texts of {job.label} were erased.")
    seqs = seqs[is_there]
    joined = {name: np.concatenate([column[at] for at in firsts])[is_there] for name, column in _kept(found)}
    disagreement = Strata(_disagreement(joined, has_second=has_second), DISAGREEMENTS) if compares else None
    slices = None if slice_key is None else Strata(joined["slices"], tuple(found.names))
    return Population(seqs, completed(joined["doubt"]), disagreement, slices)


def _kept(found: _Columns) -> Iterator[tuple[str, dict[int, Any]]]:
    return ((name, column) for name in ("doubt", "slices", "disagreement") if (column := getattr(found, name)))


def _read(db: Database, piece: Sequence[Any], found: _Columns, *, slice_key: str | None, compares: bool) -> bool:
    """Read the columns of some shards; return whether a shadow policy has decided of any."""
    more = samples.columns(db, piece, slice_key) if slice_key is not None or compares else {}
    in_force = decisions.actions_in_force(db, piece) if compares else {}
    shadows = decisions.actions_in_force(db, piece, shadow=True) if in_force else {}
    for one in decisions.facts(db, piece, Reads.NOTHING):
        found.doubt[one.first_seq] = doubts(one.facts)
        if slice_key is not None:
            found.slices[one.first_seq] = found.slice_codes(more[one.first_seq].slices)
            if len(found.names) > MOST_SLICES:
                raise RejectedError(f"{slice_key[:SLICE_CHARS]!r} has over {MOST_SLICES:,} values: too many slices.", param="slice")
        if compares:
            old, new = (by.get((one.job_id, one.first_seq)) for by in (in_force, shadows))
            differ = old != new if old is not None and new is not None else np.zeros(one.n, bool)
            found.disagreement[one.first_seq] = np.stack([differ, np.frombuffer(more[one.first_seq].models, ">i2")], axis=1)
    return bool(in_force.keys() & shadows.keys())


def _disagreement(joined: dict[str, Any], *, has_second: bool) -> Any:
    """Return each text's stratum. Which model gave its verdict is stored, what the other said is not: so those that were passed on.

    The model that judged most of the texts is the first one.
    """
    differ, models = joined["disagreement"].T
    out = np.full(len(differ), AGREES, np.int32)
    if has_second:
        known, counts = np.unique(models, return_counts=True)
        out[models != known[counts.argmax()]] = MODELS
    out[differ != 0] = POLICIES
    return out


def rows(db: Database, sample: Sample, job: JobView, drawn: Sequence[Drawn]) -> Iterator[dict[str, Any]]:
    """Yield the texts of a page of a sample, with their verdicts; one whose verdict is gone is left out."""
    of_seq = {one.seq: one for one in drawn}
    page = verdicts.of_texts(db, job.id, job.day, [one.seq for one in drawn])
    batch = ids.BATCH.of(job.public_id)
    for row, decision in zip(page.fields(), page.decided(), strict=True):
        one = of_seq[row["seq"]]
        yield {
            "sample_id": sample.label,
            "batch_id": batch,
            "seq": row["seq"],
            "row_id": row["id"],
            "verdict": said(row, decision),
            "inclusion_probability": one.probability,
            "stratum": one.stratum,
        }


def contents(db: Database, keyring: Keyring, sample: Sample, job: JobView) -> dict[int, Content]:
    """Return the sample's texts by their places, those that are not deleted; each shard is decrypted once."""
    where, wanted = Places(db, job), sorted(one.seq for page in samples.pages(db, sample) for one in page)
    out: dict[int, Content] = {}
    for place, seqs in groupby(wanted, key=where.of):
        opened = [] if place is None else texts.of_shard(db, keyring, job, place[0])
        first = 0 if place is None else place[1]
        out |= {seq: opened[seq - first].content for seq in seqs if seq - first < len(opened)}
    return out


def said(row: dict[str, Any], decision: Decision | None) -> dict[str, Any]:
    """Return what somebody who labels a text is told of its verdict, which is `rendering.fields`."""
    names = ("safe", "controversial", "unsafe")
    return {
        "severity": row["severity"],
        "categories": row["categories"],
        "probabilities": None if row["p_safe"] is None else {name: row[f"p_{name}"] for name in names},
        "error": row["error"],
        "action": decision and decision.action,
    }

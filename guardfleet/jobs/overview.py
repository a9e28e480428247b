"""What a job's page says of its verdicts: severity by category and action, probabilities, slices; of all texts or of a sample."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guardfleet.domain.verdict import CATEGORY_NAMES, Severity
from guardfleet.policy.document import Action
from guardfleet.store.jobs import sampled
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import decisions
from guardfleet.store.policy.decisions import Reads
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.encoding import CERTAIN

N_BINS = 20
MOST_VALUES = 12  # of a key; the others are one row
MOST_CHARACTERS = 80  # of a value
UNDECIDED = "undecided"
ORDER = (Severity.UNSAFE, Severity.CONTROVERSIAL, Severity.SAFE, Severity.ERROR, Severity.UNRATED)


@dataclass(frozen=True, slots=True)
class Slice:
    """The texts that have one value under a key: how many, and by severity. `value`: None for those without one."""

    value: str | None
    texts: int
    severities: dict[str, int]
    is_rest: bool = False


@dataclass(frozen=True, slots=True)
class Overview:
    """`texts` were looked at: all that have a verdict, if `is_all`.

    `crossed`: how many, by severity, category (None: without one) and action; a text with two categories is in both of their rows.
    `bins`: texts by the probability that they are not safe, from 0 to 1; `keys`: those of the texts' metadata, by a mark that may
    stand in an address, as a key may not: it can be anything, even a text. `key`: the one that the texts were counted by.
    """

    texts: int = 0
    is_all: bool = True
    crossed: dict[tuple[str, str | None], dict[str, int]] = field(default_factory=dict)
    bins: list[int] = field(default_factory=lambda: [0] * N_BINS)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    key: str | None = None

    @property
    def actions(self) -> list[str]:
        """The actions that occur, mild to grave."""
        found = {action for row in self.crossed.values() for action in row}
        return [action for action in (*(one.label for one in Action), UNDECIDED) if action in found]


def overview(db: Database, job: JobView, mark: str | None = None) -> Overview:
    """Look at a job's verdicts, and count them by the key of the texts' metadata that has this mark."""
    among = sampled.shards(db, job)
    if not among:
        return Overview()
    actions = decisions.actions_in_force(db, among)
    crossed: Counter[tuple[int, int | None, str]] = Counter()
    bins, texts = np.zeros(N_BINS, np.int64), 0
    for shard in decisions.facts(db, among, Reads.NOTHING):
        texts += shard.n
        bins += _bins(shard.facts)
        crossed += _crossed(shard.facts, actions.get((shard.job_id, shard.first_seq)))
    keys = {_mark(key): key for key in sampled.metadata_keys(db, job, among)}
    key = keys.get(mark or "")
    found = sampled.slices(db, job, among, key)
    return Overview(
        texts,
        texts >= job.done,
        _table(crossed),
        [int(n) for n in bins],
        {name: _slices(counts) for name, counts in found.items() if any(value is not None for value, _ in counts)},
        keys,
        key,
    )


def _mark(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _bins(facts: Any) -> Any:
    not_safe = (1.0 - facts["p"][facts["has_p"]][:, 0] / CERTAIN) * N_BINS
    return np.bincount(np.minimum(not_safe.astype(np.int64), N_BINS - 1), minlength=N_BINS)


def _crossed(facts: Any, actions: Any) -> Counter[tuple[int, int | None, str]]:
    """Count the texts of a shard by severity, bit of a category, and action."""
    undecided = len(Action)
    acted = np.full(len(facts), undecided) if actions is None else actions[: len(facts)].astype(np.int64)  # of a whole shard
    names = [*(action.label for action in Action), UNDECIDED]
    out: Counter[tuple[int, int | None, str]] = Counter()
    for severity in Severity:
        is_one = facts["severity"] == severity
        if not is_one.any():
            continue
        for bit in (None, *map(int, CATEGORY_NAMES)):
            of_bit = facts["categories"] == 0 if bit is None else (facts["categories"] & bit) > 0
            counts = np.bincount(acted[is_one & of_bit], minlength=len(names))
            out.update({(int(severity), bit, name): int(n) for name, n in zip(names, counts, strict=False) if n})
    return out


def _table(crossed: Counter[tuple[int, int | None, str]]) -> dict[tuple[str, str | None], dict[str, int]]:
    names = {int(category): name for category, name in CATEGORY_NAMES.items()}
    out: dict[tuple[str, str | None], dict[str, int]] = {}
    for severity in ORDER:
        for bit in (*names, None):
            row = {action: n for (s, b, action), n in crossed.items() if (s, b) == (severity, bit)}
            if row:
                out[severity.label, None if bit is None else names[bit]] = row
    return out


def _slices(counts: Counter[tuple[str | None, Severity]]) -> list[Slice]:
    by_value: dict[str | None, Counter[str]] = {}
    for (value, severity), n in counts.items():
        by_value.setdefault(value, Counter())[severity.label] += n
    ranked = sorted(by_value.items(), key=lambda item: -item[1].total())
    shown, rest = ranked[:MOST_VALUES], ranked[MOST_VALUES:]
    out = [Slice(None if value is None else value[:MOST_CHARACTERS], each.total(), dict(each)) for value, each in shown]
    if rest:
        together = sum((each for _, each in rest), Counter[str]())
        out.append(Slice(None, together.total(), dict(together), is_rest=True))
    return out

"""What a policy would have decided of stored verdicts: old action by new action, before anything is changed."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, islice
from typing import Any

import numpy as np

from guardfleet.domain.verdict import CATEGORY_NAMES, Severity
from guardfleet.jobs import assessment
from guardfleet.jobs.redecide import SHARDS_AT_ONCE, groups
from guardfleet.policy.document import LANGUAGE_KEYS, SOURCE_KEY, Action, Policy
from guardfleet.policy.evaluation import DEFAULT, ERRORS, Decider
from guardfleet.store.jobs import views
from guardfleet.store.policy import decisions
from guardfleet.store.policy.decisions import Reads, Scope
from guardfleet.store.postgres.database import Database

NOTHING = len(Action)  # in place of an action, where no policy has decided
EXAMPLES = 10  # texts whose action would change, by id
UNKNOWN = "unknown"  # language, or source
MOST_SLICES, OTHERS = 1000, "others"  # a source may be anything; those that come later are counted together
APART = ("examples", "labelled", "object", "complete", "next")  # of a report: what is not added up
MOST_SHOWN = 40  # characters of either


@dataclass
class Simulation:
    """Counts of texts: `matrix[old][new]`, the old row NOTHING for texts that no policy has decided of."""

    texts: int = 0
    matrix: Any = field(default_factory=lambda: np.zeros((NOTHING + 1, len(Action)), np.int64))
    by_rule: Counter[int] = field(default_factory=Counter)
    by_language: dict[str, list[int]] = field(default_factory=dict)  # texts, and how many would change
    by_source: dict[str, list[int]] = field(default_factory=dict)
    by_category: dict[str, list[int]] = field(default_factory=dict)
    acted: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"severity": {}, "category": {}}
    )  # texts by [old, new][action]
    examples: list[tuple[int, int, int, int]] = field(default_factory=list)  # job, place, old action, new action
    reached: tuple[int, int] | None = None  # where to go on; None: all was looked at
    labelled: dict[str, Any] | None = None  # assessment.Consequences, as a dictionary

    @property
    def changed(self) -> int:
        """How many texts would have another action; one that has none yet counts."""
        return self.texts - int(sum(self.matrix[action][action] for action in Action))

    def actions(self) -> Mapping[str, int]:
        """Return how many texts would have each action."""
        return {action.label: int(self.matrix[:, action].sum()) for action in Action}


def simulate(
    db: Database,
    policy: Policy,
    scope: Scope,
    *,
    at_most_shards: int | None = None,
    within_s: float = math.inf,
    after: tuple[int, int] = (0, 0),
) -> Simulation:
    """Decide of all stored verdicts in the scope after a place, and write nothing. After `within_s` it ends with what is begun."""
    decider, found, over = Decider(policy), Simulation(), time.monotonic() + within_s
    labelled = assessment.consequences(db, scope)
    reads = Reads.ALL if decider.reads_metadata else Reads.SLICES
    pieces = chain.from_iterable(groups(db, scope, after=after))
    for piece in pieces if at_most_shards is None else islice(pieces, -(-at_most_shards // SHARDS_AT_ONCE)):
        if found.reached is not None and time.monotonic() >= over:
            break
        before = decisions.actions_in_force(db, piece)
        for one in decisions.facts(db, piece, reads, with_lists=decider.reads_lists, with_detections=decider.reads_detections):
            outcomes = decider.outcomes(one.facts)
            new = decider.actions[outcomes]
            old = before.get((one.job_id, one.first_seq))
            old = np.full(one.n, NOTHING, np.uint8) if old is None or len(old) != one.n else old
            _count(found, one, old, new, outcomes)
            labelled.note(one.job_id, one.first_seq, old, new)
        found.reached = piece[-1].job_id, piece[-1].ord
    else:
        found.reached = None
    found.labelled = labelled.as_dict()
    return found


def report(db: Database, policy: Policy, found: Simulation, *, per_hour: float, seconds: float) -> dict[str, Any]:
    """Return a simulation in words, as every face shows it; `per_hour`: texts that a reviewer decides in an hour."""
    jobs = views.labels(db, {job for job, *_ in found.examples})
    words = [word(action) for action in range(NOTHING + 1)]
    return {
        "texts": found.texts,
        "changed": found.changed,
        "actions": found.actions(),
        "rules": {_rule(policy, outcome): n for outcome, n in sorted(found.by_rule.items())},
        "matrix": {word(old): dict(zip(words, found.matrix[old].tolist(), strict=False)) for old in range(NOTHING + 1)},
        "by_language": found.by_language,
        "by_source": found.by_source,
        "by_category": found.by_category,
        "before_after": {
            kind: {
                name: {when: dict(zip(words, row, strict=True)) for when, row in zip(("old", "new"), both.tolist(), strict=True)}
                for name, both in sorted(groups.items())
            }
            for kind, groups in found.acted.items()
        },
        "examples": [
            {"job": jobs.get(job), "seq": seq, "old": words[old], "new": words[new]} for job, seq, old, new in found.examples
        ],
        "review_hours": round(found.actions()["review"] / per_hour, 2),
        "seconds": round(seconds, 3),
        "labelled": found.labelled,
    }


def added(earlier: Mapping[str, Any] | None, later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of two passes, one after the other, as one; what labels say of parts is no whole, and is left out."""
    if earlier is None:
        return dict(later)
    whole = {name: _summed(earlier.get(name), value) for name, value in later.items() if name not in APART}
    examples = [*earlier["examples"], *later["examples"]][:EXAMPLES]
    return dict(later) | whole | {"examples": examples, "labelled": None}


def _summed(one: Any, other: Any) -> Any:
    """Add numbers up, within lists by their place and within mappings by their name."""
    if isinstance(other, Mapping):
        known = one or {}
        return {name: _summed(known.get(name), other[name]) if name in other else known[name] for name in {**known, **other}}
    if isinstance(other, list):
        return [a + b for a, b in zip(one or [0] * len(other), other, strict=True)]
    return (one or 0) + other


def word(action: int) -> str:
    """Return the action's name, or `none` in place of one."""
    return "none" if action == NOTHING else Action(action).label


def _rule(policy: Policy, outcome: int) -> str:
    names = {DEFAULT: "(default)", ERRORS: "(errors)"}
    return names.get(outcome) or policy.rules[outcome].id


def _count(found: Simulation, one: Any, old: Any, new: Any, outcomes: Any) -> None:
    found.texts += one.n
    found.matrix += np.bincount(old.astype(np.int64) * len(Action) + new, minlength=found.matrix.size).reshape(found.matrix.shape)
    for outcome, n in enumerate(np.bincount(outcomes)):
        if n:
            found.by_rule[outcome] += int(n)
    changed = old != new
    for severity in Severity:
        _act(found.acted["severity"], severity.name.lower(), one.facts["severity"] == severity, old, new)
    for bit, name in CATEGORY_NAMES.items():
        has = (one.facts["categories"] & int(bit)) != 0
        if has.any():
            _add(found.by_category, name, int(has.sum()), int((has & changed).sum()))
            _act(found.acted["category"], name, has, old, new)
    metadata = one.facts.metadata or ()
    spoken = one.languages if one.languages is not None else [_word_of(row, LANGUAGE_KEYS) for row in metadata]
    sources = one.sources if one.sources is not None else [_word_of(row, (SOURCE_KEY,)) for row in metadata]
    for counts, values in ((found.by_language, spoken), (found.by_source, sources)):
        for name, n in Counter(values).items():
            _add(counts, _shown(name), n, 0)
        for name, n in Counter(compress(values, changed.tolist())).items():
            _add(counts, _shown(name), 0, n)
    for at in np.flatnonzero(changed)[: max(0, EXAMPLES - len(found.examples))]:
        found.examples.append((one.job_id, one.first_seq + int(at), int(old[at]), int(new[at])))


def _act(groups: dict[str, Any], name: str, among: Any, old: Any, new: Any) -> None:
    """Count the actions, old and new, of some texts."""
    if among.any():
        both = groups.setdefault(name, np.zeros((2, NOTHING + 1), np.int64))
        both += [np.bincount(actions[among], minlength=NOTHING + 1) for actions in (old, new)]


def _add(counts: dict[str, list[int]], name: str, texts: int, changed: int) -> None:
    both = counts.setdefault(name if name in counts or len(counts) < MOST_SLICES else OTHERS, [0, 0])
    both[0] += texts
    both[1] += changed


def _word_of(metadata: Mapping[str, Any] | None, keys: Sequence[str]) -> str | None:
    """Return the language, or the source, as `decisions.Reads.SLICES` does in SQL."""
    said = next((metadata[key] for key in keys if metadata.get(key) is not None), None) if metadata else None
    return said if said is None or isinstance(said, str) else json.dumps(said)


def _shown(name: str | None) -> str:
    return name[:MOST_SHOWN] if name else UNKNOWN

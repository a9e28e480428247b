"""What a stored policy says of a text that was just judged, whether it is applied or not; nothing is written."""

from collections.abc import Mapping
from typing import Any

from guardfleet.domain.decision import Decision
from guardfleet.domain.detection import keys_of
from guardfleet.policy.document import Action
from guardfleet.policy.facts import CodeFacts, Seen, lists_hit
from guardfleet.store.policy.policies import Version, outcomes_of
from guardfleet.verdicts.encoding import StoredVerdict, encode

Shown = Mapping[str, Mapping[str, Any]]  # detections by entry, in the order of the plan, as faces show them


def decide(version: Version, row: StoredVerdict, detections: Shown) -> Decision | None:
    """Return what the version decides of a verdict without metadata; None if it needs a newer release."""
    decider = version.decider()
    if decider is None:
        return None
    facts = CodeFacts(
        [encode(row.judgement)], [row.input_tokens], [None], [lists_hit(row.evidence)], [_seen(detections)]
    )  # encoded again: a row that makes no verdict is an error here as everywhere
    (number,) = decider.outcomes(facts)
    known = next(one for one in outcomes_of(decider.policy) if one["outcome"] == number)
    labels = tuple(known["labels"])
    return Decision(Action(known["action"]).label, version.label, known["rule"], known["reason"], labels)


def _seen(detections: Shown) -> dict[str, Seen]:
    out: dict[str, Seen] = {}
    for keys, said in zip(keys_of(list(detections)), detections.values(), strict=True):
        out |= dict.fromkeys(keys, Seen(said["label"] or said["outcome"], said["scores"]))
    return out

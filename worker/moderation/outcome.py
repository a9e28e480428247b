"""From what was said of a shard to the rows that are stored, and to who judges next."""

from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.detection import route_of
from guardfleet.domain.plan import Plan
from guardfleet.domain.verdict import ERASED, NOBODY, Judgement, failure, unrated, with_notes
from guardfleet.rows.payload import PayloadRow
from guardfleet.store import models
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Claim


@dataclass(frozen=True, slots=True)
class Loaded:
    """A held shard with its texts, their digests, and what was said of them before."""

    held: Claim
    texts: Sequence[PayloadRow]
    digests: Sequence[bytes]
    first: Provisional | None


def next_route(plan: Plan, said: Provisional) -> str | None:
    """Return the route of who judges next: the second detector of one that was unsure, or the next one; None if all have spoken."""
    if (unsure := next((one for one in said.said if not one.is_settled), None)) is not None:
        second = plan.second_of(plan.detectors[unsure.place])
        return None if second is None else route_of(second)
    left = plan.others[len(said.said) :]
    return route_of(left[0][1]) if left else None


def stored_rows(db: Database, shard: Loaded, said: Provisional) -> list[Row]:
    """Return the rows to store: each verdict with the model that gave it, or none asked for."""
    n = len(shard.texts)
    if shard.held.plan.asks_guard:
        judgements, by_model = said.judgements, said.models
    else:
        judgements, by_model = [unrated()] * n, dict.fromkeys(range(n), models.register(db, NOBODY))
    rows = rows_of(shard.texts, shard.digests, judgements)
    for i, model_id in by_model.items():
        rows[i].model_id = model_id
    return rows


def rows_of(texts: Sequence[PayloadRow], digests: Sequence[bytes], judgements: Sequence[Judgement]) -> list[Row]:
    """Return the rows of one model's judgements."""
    return [
        Row(text.id, judgement if not text.notes else with_notes(judgement, text.notes), digest, text.metadata)
        if not text.is_erased
        else Row(None, with_notes(failure(ERASED), text.notes))
        for text, digest, judgement in zip(texts, digests, judgements, strict=True)
    ]

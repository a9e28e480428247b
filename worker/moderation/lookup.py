"""The tenant's lists, looked for in a shard's texts before the model is asked."""

from collections.abc import Sequence
from dataclasses import replace

from guardfleet.domain.verdict import Judgement, ServedBy
from guardfleet.lists.matching import Hits
from guardfleet.rows.payload import PayloadRow
from guardfleet.store.policy import lists
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.leases import Claim


def hits(db: Database, held: Claim, rows: Sequence[PayloadRow]) -> list[Hits | None]:
    """Return what of the lists that were active at the claim is in each text."""
    if not held.lists:
        return [None] * len(rows)
    return lists.matcher(db, held.lists).find([row.content for row in rows])


def noted(judgements: Sequence[Judgement], found: Sequence[Hits | None]) -> list[Judgement]:
    """Return the judgements with the hits of their texts as evidence."""
    return [judgement if one is None else _with(judgement, one) for judgement, one in zip(judgements, found, strict=True)]


def _with(judgement: Judgement, found: Hits) -> Judgement:
    if judgement.served_by is ServedBy.LIST:  # it has them already
        return judgement
    return replace(judgement, evidence={**(judgement.evidence or {}), **found.evidence(decided=False)})

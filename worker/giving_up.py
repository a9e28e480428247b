"""Shards that were tried too often: halved until what is wrong stands alone, then settled with an error row."""

from collections.abc import Sequence
from dataclasses import replace

from guardfleet.errors import ConfigurationError, NotFoundError
from guardfleet.sealing import Keyring, PayloadRow
from guardfleet.store import doorbells, installation, opinions, settling, shards, verdicts
from guardfleet.store.database import Database
from guardfleet.store.halving import halve
from guardfleet.store.opinions import Opinion
from guardfleet.store.settling import Row
from guardfleet.store.shards import Claim, Limits
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger
from guardfleet.verdict import Judgement, Model, failure, with_notes
from worker.cascade import is_sure

NOBODY = Model("nobody", "0", "none")


def give_up(db: Database, keyring: Keyring, limits: Limits, *, lease_s: float) -> None:
    """Go over all shards that reached a limit, each through a claim and its fence like any other."""
    for job, shard in doorbells.exhausted(db, limits):
        held = shards.claim(db, job, shard, worker="dispatcher", lease_s=lease_s)
        if held is None:
            continue
        reason = f"{held.claims - 1} crashes, {held.failures} failures"
        texts, first = _contents(db, keyring, held)
        if held.n > 1 and texts:
            if halve(db, keyring, held, texts, first, limits=limits):
                metrics.SHARDS.labels("halved").inc()
                get_logger().warning("shard_halved", job=job, shard=shard, texts=held.n, reason=reason)
            continue
        rows = _rows(held, failure("abandoned", reason), texts, first, nobody=verdicts.register_model(db, NOBODY))
        if settling.finish(db, held, rows, model_id=None):
            metrics.SHARDS.labels("buried").inc()
            get_logger().error("shard_buried", job=job, shard=shard, reason=reason)


def _contents(db: Database, keyring: Keyring, held: Claim) -> tuple[list[PayloadRow], Opinion | None]:
    try:
        return opinions.load(db, keyring, held)
    except (ConfigurationError, NotFoundError) as error:  # the texts cannot be read any more: their ids are lost with them
        if isinstance(error, ConfigurationError):
            installation.require_key(db, keyring)  # unless only this process cannot: then nothing is given up
        return [], None


def _rows(held: Claim, judgement: Judgement, texts: Sequence[PayloadRow], first: Opinion | None, *, nobody: int) -> list[Row]:
    """What is written of a shard nobody could finish: what a first model was sure of stands, the others have no verdict."""
    if not texts:
        return [Row(None, judgement, model_id=nobody)] * held.n
    rows = [Row(row.id, with_notes(judgement, row.notes), None, row.metadata, nobody) for row in texts]
    if first is None:
        return rows
    return [
        replace(row, judgement=with_notes(said, text.notes), model_id=first.model_id) if is_sure(said, held.plan.sure) else row
        for row, text, said in zip(rows, texts, first.judgements, strict=True)
    ]

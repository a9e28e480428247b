"""Poison handling: shards that were tried too often are bisected until the bad text is alone, then settled with an error row.

Every such shard ends: an error here postpones it in its row, for longer each time, and after `TRIES` tries it is settled without
being decrypted. So each of its texts is counted once, its job ends, and neither a restart nor a standby starts from the beginning.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from guardfleet.domain.cascade import is_sure, is_sure_detection
from guardfleet.domain.detection import Detection, detector_of, failed
from guardfleet.domain.verdict import ERASED, NOBODY, Judgement, Model, Severity, failure, unrated, with_notes
from guardfleet.errors import ConfigurationError, GuardfleetError, NotFoundError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store import installation, models
from guardfleet.store.detections import Detected
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases
from guardfleet.store.shards.bisect import bisect
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Claim, Limits, ShardKey
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger

TRIES = 5
LONGEST_S = 300.0  # longest delay after an error


def give_up(db: Database, keyring: Keyring, key: ShardKey, limits: Limits, *, lease_s: float) -> None:
    """Bisect or settle one shard that reached a limit, under a claim and its fence as for any other change.

    On an error, postpones the shard and raises the error.
    """
    held = leases.claim(db, *key, worker="dispatcher", lease_s=lease_s)
    if held is None:
        return
    tries = leases.begin_giving_up(db, held)
    try:
        _give_up(db, keyring, held, limits, is_last=tries > TRIES)
    except Exception as error:
        reason = f"{type(error).__name__} in the dispatcher"
        with suppress(GuardfleetError):  # otherwise its lease runs out
            leases.postpone(db, held, delay_s=min(LONGEST_S, 2.0**tries), error=reason)
        raise


def _give_up(db: Database, keyring: Keyring, held: Claim, limits: Limits, *, is_last: bool) -> None:
    reason = f"{held.claims - 1} crashes, {held.failures} failures"
    if is_last:
        installation.require_key(db, keyring)  # raises if only this process cannot decrypt it
    texts, first = ([], None) if is_last else _contents(db, keyring, held)
    if held.n > 1 and texts:
        if bisect(db, keyring, held, texts, first, limits=limits):
            metrics.POISONED.labels("halved").inc()
            get_logger().warning("shard_halved", job=held.label, shard=held.shard_no, texts=held.n, reason=reason)
        return
    rows = _rows(held, failure("abandoned", reason), texts, first, nobody=models.register(db, NOBODY))
    if completion.finish(db, held, rows, model_id=None, detected=_detected(db, held, texts, first, reason)):
        metrics.POISONED.labels("buried").inc()
        metrics.DEAD_LETTERS.labels("abandoned").inc(sum(row.judgement.severity is Severity.ERROR for row in rows))
        get_logger().error("shard_buried", job=held.label, shard=held.shard_no, reason=reason)


def _contents(db: Database, keyring: Keyring, held: Claim) -> tuple[list[PayloadRow], Provisional | None]:
    try:
        return handoff.load(db, keyring, held)
    except (ConfigurationError, NotFoundError) as error:  # nobody can read the texts any more: their ids are lost with them
        if isinstance(error, ConfigurationError):
            installation.require_key(db, keyring)  # raises if only this process cannot: then nothing is settled
        return [], None


def _rows(held: Claim, judgement: Judgement, texts: Sequence[PayloadRow], first: Provisional | None, *, nobody: int) -> list[Row]:
    """Return the rows of a shard that nobody could finish: what the guard has said for sure stands, other texts get the error."""
    if not texts:
        return [Row(None, judgement, model_id=nobody)] * held.n
    rows = [
        Row(row.id, with_notes(judgement, row.notes), None, row.metadata, nobody)
        if not row.is_erased
        else Row(None, with_notes(failure(ERASED), row.notes), model_id=nobody)
        for row in texts
    ]
    if not held.plan.asks_guard:
        return [
            row if text.is_erased else replace(row, judgement=with_notes(unrated(), text.notes))
            for row, text in zip(rows, texts, strict=True)
        ]
    if first is None:
        return rows
    return [
        replace(row, judgement=with_notes(said, text.notes), model_id=first.models.get(i, first.model_id))
        if first.is_settled or is_sure(said, held.plan.sure)
        else row
        for i, (row, text, said) in enumerate(zip(rows, texts, first.judgements, strict=True))
    ]


def _detected(db: Database, held: Claim, texts: Sequence[PayloadRow], first: Provisional | None, reason: str) -> list[Detected]:
    """Return what detectors have said for sure of the texts; where they could not say, an error."""
    known = _known(db, held, first, reason) if first is not None and texts else {}
    gone = [failed(ERASED) if text.is_erased else failed("abandoned", reason) for text in texts]
    lost = gone or [failed("abandoned", reason)] * held.n
    return [known[place] if place in known else _by_nobody(db, place, entry, lost) for place, entry in held.plan.others]


def _known(db: Database, held: Claim, first: Provisional, reason: str) -> dict[int, Detected]:
    """Return by its place what each detector has said, without what the second one did not come to decide."""
    found = {}
    for said, one in zip(first.said, handoff.detected_of(db, first), strict=True):
        entry = held.plan.detectors[said.place]
        cascade = None if said.is_settled else held.plan.cascade_of(entry)
        found[said.place] = one if cascade is None else _surely(db, one, held.plan.sure_of(cascade), entry, reason)
    return found


def _surely(db: Database, one: Detected, least: float, entry: str, reason: str) -> Detected:
    unsure = {i for i, said in enumerate(one.detections) if not is_sure_detection(said, one.model, least)}
    nobody, lost = _nobody(db, entry), failed("abandoned", reason)
    said = [lost if i in unsure else known for i, known in enumerate(one.detections)]
    return replace(one, detections=said, others=dict.fromkeys(unsure, nobody))


def _nobody(db: Database, entry: str) -> tuple[int, Model]:
    nobody = replace(NOBODY, detector=detector_of(entry))
    return models.register(db, nobody), nobody


def _by_nobody(db: Database, place: int, entry: str, lost: Sequence[Detection]) -> Detected:
    return Detected(place, *_nobody(db, entry), lost)

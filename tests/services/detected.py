"""Detections for tests of the store: a detector, what it says, and a job whose texts it has judged."""

from typing import Any

from guardfleet.domain.detection import Detection, Outcome, failed
from guardfleet.domain.verdict import Model
from guardfleet.security.encryption import Keyring
from guardfleet.store import models
from guardfleet.store.detections import Detected
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Waits
from tests.services.judged import SAFE
from tests.services.stored import MODEL, new_job, submit, took
from worker.moderation.outcome import Loaded, stored_rows

FINDER = Model("f", "1", "p", detector="finder", labels=("clear", "found"), neutral="clear")
TOPICS = Model("t", "1", "p", detector="topics", labels=("art", "sport", "war"))
FOUND = Detection(Outcome.LABELLED, "found", (0.25, 0.75), input_tokens=7)
CLEAR = Detection(Outcome.LABELLED, "clear", (0.9, 0.1), input_tokens=7)
SHORT = Detection(Outcome.TOO_SHORT, input_tokens=1)
BROKEN = failed("engine_failed", "it raises ValueError")
ENDS = [FOUND, CLEAR, SHORT, BROKEN]
BOTH: dict[str, Any] = {"name": "test", "detectors": "guard,finder", "brings_workers": True}


def detected(db: Database, found: list[Detection], model: Model = FINDER, place: int = 1) -> Detected:
    return Detected(place, models.register(db, model), model, found)


def finished(db: Database, keyring: Keyring, found: list[Detection], **asked: Any) -> JobView:
    """A job of a shard whose texts are safe, and of which the finder said this."""
    job = submit(db, keyring, len(found), shard_texts=len(found), new=new_job(**(BOTH | asked)))
    held = took(db, job, 0)
    digests = [keyring.digest(1, f"text {i}") for i in range(len(found))]
    rows = [Row(f"id{i}", SAFE, digest, {"user": "u"}) for i, digest in enumerate(digests)]
    assert completion.finish(db, held, rows, model_id=models.register(db, MODEL), detected=[detected(db, found)])
    return views.get(db, job.public_id)


def without_guard(db: Database, keyring: Keyring, found: list[Detection]) -> JobView:
    """A job that asked the finder and not the guard, of a shard of which it said this."""
    n = len(found)
    job = submit(db, keyring, n, shard_texts=n, new=new_job(name="x", detectors="finder", brings_workers=True))
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
    assert held is not None
    shard = Loaded(held, leases.load(db, keyring, held), [b"0" * 16] * n, None)
    rows = stored_rows(db, shard, Provisional(None, [], is_settled=True))
    assert completion.finish(db, held, rows, model_id=None, detected=[detected(db, found, place=0)])
    return views.get(db, job.public_id)

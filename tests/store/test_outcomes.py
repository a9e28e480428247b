"""What becomes of a shard whose worker cannot write: database errors do not count against it."""

from dataclasses import replace
from typing import Any

import pytest
from celery.exceptions import Reject

from guardfleet.domain.verdict import Category, Severity
from guardfleet.errors import RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.telemetry import metrics
from tests.services.moderating import moderator
from tests.services.poison import allow, refuse
from tests.services.stored import scalar, submit
from worker.moderation.judge import Judge
from worker.moderation.tasks import FINISH_TRIES, Moderator

__all__ = ["moderator"]


def test_a_disk_that_stays_full_is_no_failure_of_the_shard(
    moderator: Moderator, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(db, keyring, 4)
    tries = 0
    finish = completion.finish

    def full(*args: Any, **kwargs: Any) -> bool:
        nonlocal tries
        tries += 1
        raise RetryableError("PostgreSQL did not answer: could not extend file: No space left on device")

    monkeypatch.setattr(completion, "finish", full)
    for _ in range(moderator.tuning.max_failures + 2):
        moderator(job.id, 0)
        assert scalar(db, "select array[claims, failures, state] from shard") == [0, 0, 0]
    assert tries == FINISH_TRIES * (moderator.tuning.max_failures + 2)
    monkeypatch.setattr(completion, "finish", finish)
    moderator(job.id, 0)
    assert scalar(db, "select array[claims, failures, state] from shard") == [1, 0, 2]


def test_a_defect_of_the_worker_is_one(
    moderator: Moderator, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(db, keyring, 4)

    def broken(*args: Any, **kwargs: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(completion, "finish", broken)
    moderator(job.id, 0)
    assert scalar(db, "select array[claims, failures, state] from shard") == [0, 1, 0]
    assert scalar(db, "select last_error from shard") == "ZeroDivisionError in the worker"


def test_a_worker_whose_engine_is_dead_claims_nothing(moderator: Moderator, db: Database, keyring: Keyring) -> None:
    deadly, innocent = submit(db, keyring, 1, mark="[[lost]]"), submit(db, keyring, 1)
    for job in (deadly, innocent, deadly):
        with pytest.raises(Reject, match="the engine died"):
            moderator(job.id, 0)
    assert scalar(db, "select array_agg(claims order by job_id) from shard") == [1, 0]


@pytest.mark.parametrize("sqlstate", ["57014", "53300"])
def test_a_statement_time_out_or_no_connection_is_no_failure_of_the_shard(
    sqlstate: str, moderator: Moderator, db: Database, keyring: Keyring
) -> None:
    job = submit(db, keyring, 4)
    refuse(db, "verdict", job, "insert", sqlstate)
    moderator(job.id, 0)
    assert scalar(db, "select array[claims, failures, state] from shard") == [0, 0, 0]
    allow(db, "verdict", job)
    moderator(job.id, 0)
    assert scalar(db, "select array[claims, failures, state] from shard") == [1, 0, 2]


def test_metrics_count_what_was_written(
    moderator: Moderator, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge.judge

    def contradicting(*args: Any) -> Any:
        first, *others = judge(*args)
        return [replace(first, categories=Category.VIOLENT), *others]

    def counted(severity: Severity) -> float:
        return float(metrics.REQUESTS.labels("prompt", severity.label)._value.get())

    monkeypatch.setattr(Judge, "judge", contradicting)
    before = counted(Severity.SAFE), counted(Severity.ERROR), metrics.RISK_TYPES.labels("Violent")._value.get()
    moderator(submit(db, keyring, 4).id, 0)
    assert scalar(db, "select array[safe, error] from job") == [3, 1]
    after = counted(Severity.SAFE), counted(Severity.ERROR), metrics.RISK_TYPES.labels("Violent")._value.get()
    assert [now - was for now, was in zip(after, before, strict=True)] == [3, 1, 0]

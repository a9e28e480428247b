"""Two models over one job, through real processes: what the first is sure of is final, the second decides the rest."""

import json
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.domain.plan import Plan
from guardfleet.domain.states import JobState, ShardState
from guardfleet.domain.verdict import Model
from guardfleet.errors import RejectedError
from guardfleet.settings import Settings
from guardfleet.store import models, verdicts
from guardfleet.store.jobs import control, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases, publishing
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Claim, Limits, Waits
from guardfleet.store.shards.publishing import Route
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.judged import UNSURE, answered
from tests.services.outcome import assert_exactly_once, finished
from worker.dispatch.poison import give_up

DISPATCHER, FIRST, SECOND = ("dispatcher",), ("worker",), ("worker", "--model", "large", "--named-only")
ASKED = JobOptions(escalate_to="large", audit_fraction=0.2)
BRINGS = SubmitOptions(brings_workers=True)
SURE = answered("Safety: Safe\nCategories: None", (0.98, 0.01, 0.01))


def texts(n: int) -> list[dict[str, Any]]:
    """Every tenth is a doubt, every fiftieth is judged wrongly by the first model with full certainty."""
    mark = {0: " [[doubt]]", 5: " [[overruled]]"}
    return [{"id": f"t{i}", "text": f"text {i}" + (mark[i % 10] if i % 10 == 0 or i % 50 == 5 else "")} for i in range(n)]


TEXTS = {row["id"]: row["text"] for row in texts(500)}


def is_sampled(producer: DirectClient, text: str) -> bool:
    """Whether the plan's sample has the text: its digest, which hangs on the installation's key, is as good as a die."""
    return int.from_bytes(producer.keyring.digest(1, text)[:4]) < ASKED.audit_fraction * (1 << 32)


def rows_of(producer: DirectClient, job: views.JobView) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in verdicts.export(producer.db, job)}


@with_broker("rabbitmq")
def test_the_second_model_has_the_last_word_where_the_first_is_unsure_and_nowhere_else(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, FIRST, SECOND):
        job = finished(producer, producer.submit(texts(500), ASKED, BRINGS).job)
        plain = finished(producer, producer.submit([{"id": "x", "text": "[[overruled]] of a job without a plan"}]).job)
    assert job.state is JobState.COMPLETED
    assert_exactly_once(producer, job)
    rows = rows_of(producer, job)
    assert {row["model"] for key, row in rows.items() if int(key[1:]) % 10 == 0} == {"large"}
    assert {row["model"] for key, row in rows.items() if int(key[1:]) % 10} == {"instant"}
    assert (job.unsafe, job.safe, job.escalated) == (50, 450, 50)
    sampled = {key for key in rows if int(key[1:]) % 10 and is_sampled(producer, TEXTS[key])}
    assert 50 < job.sampled == len(sampled) < 130  # a fifth of 450
    assert job.agreed == sum(1 for key in sampled if "[[overruled]]" not in TEXTS[key])
    assert rows_of(producer, plain)["x"]["model"] == "instant"
    with producer.db.begin() as connection:
        assert connection.scalar("select count(*) from first_opinion") == 0


def test_only_workers_with_the_model_a_job_names_take_it(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, FIRST, SECOND):
        job = finished(producer, producer.submit(["one", "two"], JobOptions(model="large"), BRINGS).job)
    assert {row["model"] for row in verdicts.export(producer.db, job)} == {"large"}


@with_broker("redis")
def test_a_second_worker_killed_in_the_middle_loses_and_doubles_nothing(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=200.0, lease_s=1.0)
    with fleet(settings, tmp_path, DISPATCHER, FIRST):
        job = producer.submit(texts(500), ASKED, BRINGS).job
        (tmp_path / "victim").mkdir()
        with fleet(slow, tmp_path / "victim", SECOND) as (victim,):
            until(lambda: opinions_waiting(producer.db) and leased_by_second(producer.db), what="a shard at the second model")
            victim.signal(signal.SIGKILL)
            victim.wait()
        (tmp_path / "second").mkdir()
        with fleet(settings, tmp_path / "second", SECOND):
            done = finished(producer, job)
    assert_exactly_once(producer, done)
    assert (done.unsafe, done.safe, done.escalated) == (50, 450, 50)


def opinions_waiting(db: Database) -> int:
    with db.begin() as connection:
        return int(connection.scalar("select count(*) from first_opinion"))


def leased_by_second(db: Database) -> int:
    with db.begin() as connection:
        return int(connection.scalar("select count(*) from shard where state = 1 and model = 'large'"))


def claimed(producer: DirectClient, model: str | None = None) -> tuple[Claim, int]:
    """The only shard of a new cascade job, held by its first model."""
    job = producer.submit(["a", "b"], ASKED, BRINGS).job
    held = leases.claim(producer.db, job.id, 0, worker="w", lease_s=60, by=Waits(model, takes_any=True))
    assert held is not None
    return held, models.register(producer.db, Model("instant", "1", "marks"))


@with_broker("redis")
def test_a_shard_passed_on_is_for_the_second_model_alone_and_its_old_doorbell_opens_nothing(producer: DirectClient) -> None:
    held, model_id = claimed(producer, "instant")
    provisional = Provisional(model_id, [SURE, UNSURE])
    assert handoff.pass_on(producer.db, producer.keyring, held, provisional)
    assert not handoff.pass_on(producer.db, producer.keyring, held, provisional)  # the claim is spent
    assert leases.claim(producer.db, held.job_id, 0, worker="w", lease_s=60, by=Waits("instant", takes_any=True)) is None
    assert publishing.due(producer.db, Route(0), limit=9) == []
    assert [bell.shard_no for bell in publishing.due(producer.db, Route(0, "large"), limit=9)] == [0]
    assert Route(0, "large") in publishing.windows(producer.db)
    again = leases.claim(producer.db, held.job_id, 0, worker="w", lease_s=60, by=Waits("large", takes_any=True))
    assert again is not None
    assert again.claims == 1
    assert handoff.load(producer.db, producer.keyring, again)[1] == provisional


@with_broker("redis")
def test_a_zombie_of_the_first_model_cannot_finish_a_shard_that_was_passed_on(producer: DirectClient) -> None:
    held, model_id = claimed(producer)
    assert handoff.pass_on(producer.db, producer.keyring, held, Provisional(model_id, [SURE, UNSURE]))
    assert not completion.finish(producer.db, held, [Row("1", SURE), Row("2", SURE)], model_id=model_id)
    assert leases.states(producer.db, held.job_id) == {ShardState.READY: 1}


@with_broker("redis")
def test_a_cancelled_job_is_not_passed_on(producer: DirectClient) -> None:
    held, model_id = claimed(producer)
    control.cancel(producer.db, held.job_id)
    assert handoff.pass_on(producer.db, producer.keyring, held, Provisional(model_id, [SURE, UNSURE]))
    assert leases.states(producer.db, held.job_id) == {ShardState.CANCELLED: 1}
    assert control.settle_cancelled(producer.db, control.cancelling(producer.db)) == 1


@with_broker("redis")
def test_a_shard_that_kills_every_second_worker_keeps_what_the_first_was_sure_of(producer: DirectClient) -> None:
    held, model_id = claimed(producer)
    handoff.pass_on(producer.db, producer.keyring, held, Provisional(model_id, [SURE, UNSURE]))
    for _ in range(2):  # the shard, then its halves
        with producer.db.begin() as connection:
            connection.execute("update shard set claims = 99")
        for key in publishing.exhausted(producer.db, Limits(6, 5)):
            give_up(producer.db, producer.keyring, key, Limits(6, 5), lease_s=60)
    done = views.get_by_id(producer.db, held.job_id)
    assert done.state is JobState.COMPLETED
    found = [(row["severity"], row["error"], row["model"]) for row in verdicts.export(producer.db, done)]
    assert found == [("safe", None, "instant"), ("error", "abandoned", "nobody")]


@with_broker("redis")
def test_a_model_that_nobody_serves_is_refused_with_those_that_are_served(producer: DirectClient) -> None:
    with pytest.raises(RejectedError, match=r"'large' yet: start one with it\. Models served so far: none"):
        producer.submit(untouched(), ASKED)
    assert views.page(producer.db, tenant_id=producer.tenant_id, after=None, limit=1) == []
    models.register(producer.db, Model("large", "1", "p"))
    assert producer.submit(["one"], ASKED).job.total == 1


def untouched() -> Iterator[str]:
    pytest.fail("read")
    yield ""


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan("a", "a"), "must differ from the first"),
        (Plan("\n"), "printable"),
        (Plan(sure=0), "more than 0"),
        (Plan(sample=1.5), "0 to 1"),
        (Plan(long_texts="some"), "windows, head"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(plan: Plan, said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        plan.check()


@with_broker("redis")
def test_a_job_can_ask_for_the_head_of_long_texts_only(producer: DirectClient, settings: Settings, tmp_path: pathlib.Path) -> None:
    short = settings.but(window_tokens=256, window_overlap=16)
    text = "word " * 2000 + "[[unsafe]]"
    with fleet(short, tmp_path, DISPATCHER, FIRST):
        head = finished(producer, producer.submit([text], JobOptions(long_texts="head")).job)
        whole = finished(producer, producer.submit([text]).job)
    (row,) = verdicts.export(producer.db, head)
    assert row["severity"] == "safe"
    assert "left out on request" in row["rationale"]
    (row,) = verdicts.export(producer.db, whole)
    assert (row["severity"], row["served_by"]) == ("unsafe", "model")  # a part's verdict serves no whole text from the cache
    assert json.loads(json.dumps(row["evidence"]))["decided"][1] == len(text)

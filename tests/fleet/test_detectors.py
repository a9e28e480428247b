"""Several detectors over one job, through real processes: one row per text and detector, each text in exactly one count of each."""

import pathlib
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from guardfleet import Client
from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.errors import NotFoundError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys, verdicts
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import fleet_settings, with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished
from tests.services.patience import patience
from tests.services.served import served
from tests.services.stored import scalar

DISPATCHER, GUARD, FINDER = ("dispatcher",), ("worker",), ("worker", "--detector", "finder")
OTHER = ("worker", "--detector", "other")
BOTH = JobOptions.of(detectors="finder,guard")
BRINGS = SubmitOptions(brings_workers=True)
MARKS = {0: " [[found]]", 3: " [[unsafe]]", 5: " [[babble]]", 7: " [[unsafe]] [[found]]"}
SEVERITY = {0: "safe", 3: "unsafe", 5: "error", 7: "unsafe"}
ENDS = {0: ("labelled", "found"), 5: ("error", None), 7: ("labelled", "found")}


def texts(n: int) -> list[dict[str, Any]]:
    return [{"id": f"t{i}", "text": f"text {i}{MARKS.get(i % 10, '')}"} for i in range(n)]


def assert_each_detector_said_what_it_must(rows: list[dict[str, Any]], name: str) -> None:
    for row in rows:
        said = row["detections"][name]
        assert (said["outcome"], said["label"]) == ENDS.get(int(row["id"][1:]) % 10, ("labelled", "clear"))


@with_broker("rabbitmq")
def test_each_text_gets_a_verdict_and_a_detection_in_one_commit(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, GUARD, FINDER):
        job = finished(producer, producer.submit(texts(500), BOTH, BRINGS).job)
    assert job.state is JobState.COMPLETED
    assert_exactly_once(producer, job)
    rows = list(verdicts.export(producer.db, job))
    assert Counter(row["severity"] for row in rows) == {"safe": 350, "unsafe": 100, "error": 50}
    for row in rows:
        assert row["severity"] == SEVERITY.get(int(row["id"][1:]) % 10, "safe")
    assert_each_detector_said_what_it_must(rows, "finder")
    assert job.detected == {"finder": {"clear": 350, "found": 100, "error": 50}}
    with producer.db.begin() as connection:
        assert connection.scalar("select count(*) from first_opinion") == 0
        assert connection.scalar("select count(*) from detection") == 500
        assert connection.scalar("select count(*) from detections where outcome = 'labelled' and score > 0.9") == 450


@with_broker("redis")
def test_without_the_guard_nothing_is_called_safe(producer: DirectClient, settings: Settings, tmp_path: pathlib.Path) -> None:
    with fleet(settings, tmp_path, DISPATCHER, FINDER, OTHER):
        job = finished(producer, producer.submit([*texts(100), "  "], JobOptions.of(detectors="finder,other"), BRINGS).job)
    assert (job.safe, job.error, job.unrated, job.done) == (0, 0, 101, 101)
    assert job.detected == {key: {"clear": 70, "found": 20, "error": 10, "too_short": 1} for key in ("finder", "other")}
    rows = list(verdicts.export(producer.db, job))
    assert {row["severity"] for row in rows} == {"unrated"}
    assert {row["rationale"] for row in rows} == {"Not rated: the job did not ask the guard."}
    assert {row["model"] for row in rows} == {"nobody"}


@with_broker("redis")
def test_detectors_killed_in_the_middle_lose_and_double_nothing(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=200.0, lease_s=1.0)
    with fleet(settings, tmp_path, DISPATCHER, GUARD):
        job = producer.submit(texts(500), BOTH, BRINGS).job
        (tmp_path / "victim").mkdir()
        with fleet(slow, tmp_path / "victim", FINDER) as (victim,):
            until(lambda: leased_by(producer, "detector:finder"), what="a shard at the detector")
            victim.signal(signal.SIGKILL)
            victim.wait()
        (tmp_path / "next").mkdir()
        with fleet(settings, tmp_path / "next", FINDER):
            done = finished(producer, job)
    assert_exactly_once(producer, done)
    assert done.detected == {"finder": {"clear": 350, "found": 100, "error": 50}}
    with producer.db.begin() as connection:
        assert connection.scalar("select count(*) from detection") == 500


@with_broker("redis")
def test_a_text_that_kills_each_detector_keeps_its_verdict(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, GUARD, FINDER):
        job = finished(producer, producer.submit(["one", "[[raise]] two"], BOTH, BRINGS).job)
    first, second = verdicts.export(producer.db, job)
    assert (first["severity"], first["detections"]["finder"]["label"]) == ("safe", "clear")
    assert (second["severity"], second["error"]) == ("error", "engine_failed")
    assert second["detections"]["finder"]["error"]["code"] == "engine_failed"


@with_broker("redis")
def test_equal_texts_are_detected_once_and_never_by_another_detectors_word(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    asked = JobOptions.of(detectors=["finder"])
    with fleet(settings, tmp_path, DISPATCHER, FINDER, OTHER):
        finished(producer, producer.submit(["same [[found]]", "same [[found]]"], asked, BRINGS).job)
        again = finished(producer, producer.submit(["same [[found]]"], JobOptions.of(detectors="other,finder"), BRINGS).job)
    (row,) = verdicts.export(producer.db, again)
    assert {name: said["served_by"] for name, said in row["detections"].items()} == {"finder": "cache", "other": "model"}


@with_broker("redis")
def test_a_detector_that_nobody_serves_is_refused(producer: DirectClient) -> None:
    with pytest.raises(NotFoundError, match="no worker has served a detector 'finder' yet"):
        producer.submit(["one"], BOTH)
    assert views.page(producer.db, tenant_id=producer.tenant_id, after=None, limit=1) == []


def leased_by(producer: DirectClient, route: str) -> int:
    with producer.db.begin() as connection:
        return int(connection.scalar("select count(*) from shard where state = 1 and model = %(route)s", {"route": route}))


@pytest.fixture
def at(database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """URL and key of an API with a guard, a detector, and a dispatcher."""
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    with fleet(settings, tmp_path, DISPATCHER, GUARD, FINDER), served(settings) as url:
        until(lambda: scalar(db, "select count(*) from model") == 2, what="both workers")
        yield url, keys.create(db, keyring, name="k")


def test_detectors_answer_while_the_caller_waits(at: tuple[str, str], db: Database) -> None:
    url, key = at
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=patience(60)) as client:
        texts = ["plain", "[[found]]", "", "[[babble]]"]
        many = client.post("/v1/detect", json={"input": texts, "detectors": ["finder"]}).json()
        said = [(one["index"], one["detections"]["finder"]) for one in many["results"]]
        ends = [(index, found["outcome"], found["label"]) for index, found in said]
        assert ends == [(0, "labelled", "clear"), (1, "labelled", "found"), (2, "too_short", None), (3, "error", None)]
        assert all("verdict" not in one for one in many["results"])
        chat = [{"role": "user", "content": "[[found]]"}, {"role": "assistant", "content": "x"}]
        one = client.post("/v1/detect", json={"messages": chat, "detectors": ["finder", "guard"]}).json()["results"][0]
        assert (one["detections"]["finder"]["label"], one["verdict"]["severity"]) == ("clear", "safe")
        for wrong, code in (
            ({"input": "x", "detectors": ["nobodys"]}, 404),
            ({"input": "x", "detectors": ["finder", "finder"]}, 400),
            ({"input": "x", "detectors": ["Finder"]}, 400),
            ({"input": "x", "detectors": []}, 422),
            ({"input": "x"}, 422),
            ({"input": "x", "messages": chat, "detectors": ["finder"]}, 400),
            ({"detectors": ["finder"]}, 400),
            ({"input": ["x"] * 257, "detectors": ["finder"]}, 422),
        ):
            assert client.post("/v1/detect", json=wrong).status_code == code, wrong
    with Client(url, key) as sync:
        assert [one["finder"]["label"] for one in sync.detect(["[[found]]", "x"], ["finder"])] == ["found", "clear"]
    assert scalar(db, "select count(*) from detection where served_by = 0") > 0

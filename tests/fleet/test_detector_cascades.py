"""A detector and its second one over one job, through real processes: killed between the two, no text is lost or judged twice."""

import pathlib
import signal
from typing import Any

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.settings import Settings
from guardfleet.store import verdicts
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished
from tests.services.stored import scalar

DISPATCHER, GUARD, FIRST = ("dispatcher",), ("worker",), ("worker", "--detector", "finder")
SECOND = ("worker", "--detector", "large-finder", "--model", "large")
ASKED = JobOptions.of(detectors="guard,finder", detector_cascades="finder=large-finder@0.8", audit_fraction=0.2)
BRINGS = SubmitOptions(brings_workers=True)
MARKS = {0: " [[doubt]]", 3: " [[found]]", 5: " [[overruled]]"}


def texts(n: int) -> list[dict[str, Any]]:
    return [{"id": f"t{i}", "text": f"text {i}{MARKS.get(i % 10, '')}"} for i in range(n)]


TEXTS = {row["id"]: row["text"] for row in texts(500)}


def is_sampled(producer: DirectClient, text: str) -> bool:
    """Whether the plan's sample has the text, if the first detector is sure of it."""
    return int.from_bytes(producer.keyring.digest(1, text)[:4]) < ASKED.audit_fraction * (1 << 32)


def assert_each_text_has_the_word_of_who_decided(producer: DirectClient, job: JobView) -> None:
    assert job.state is JobState.COMPLETED
    assert_exactly_once(producer, job)
    said = {row["id"]: row["detections"]["finder"] for row in verdicts.export(producer.db, job)}
    for key, found in said.items():
        mark = MARKS.get(int(key[1:]) % 10, "")
        wanted = "large" if mark == " [[doubt]]" else "instant", "found" if mark in (" [[doubt]]", " [[found]]") else "clear"
        assert (found["model"], found["label"]) == wanted
    sampled = {key for key in said if int(key[1:]) % 10 and is_sampled(producer, TEXTS[key])}
    agreed = sum("[[overruled]]" not in TEXTS[key] for key in sampled)
    counts = job.cascades["finder"]
    assert (counts["escalated"], counts["sampled"], counts["agreed"]) == (50, len(sampled), agreed)
    assert job.detected == {"finder": {"clear": 400, "found": 100}}
    assert (scalar(producer.db, "select count(*) from detection"), scalar(producer.db, "select count(*) from first_opinion")) == (
        500,
        0,
    )


@with_broker("rabbitmq")
def test_the_second_detector_has_the_last_word_where_the_first_is_unsure(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, GUARD, FIRST, SECOND):
        done = finished(producer, producer.submit(texts(500), ASKED, BRINGS).job)
    assert_each_text_has_the_word_of_who_decided(producer, done)


@with_broker("redis")
def test_workers_killed_at_either_detector_lose_and_double_nothing(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=200.0, lease_s=1.0)
    with fleet(settings, tmp_path, DISPATCHER, GUARD):
        job = producer.submit(texts(500), ASKED, BRINGS).job
        for victim_of, route in ((FIRST, "detector:finder"), (SECOND, "detector:large-finder")):
            folder = tmp_path / route.replace(":", "-")
            folder.mkdir()
            with fleet(slow, folder, victim_of) as (victim,):
                until(lambda route=route: leased_by(producer.db, route), what=f"a shard at {route}")  # type: ignore[misc]
                victim.signal(signal.SIGKILL)
                victim.wait()
            (folder / "next").mkdir()
            with fleet(settings, folder / "next", victim_of):
                if victim_of is FIRST:
                    until(lambda: waiting_for_second(producer.db) == 10, what="all shards on their way to the second")
                else:
                    done = finished(producer, job)
    assert_each_text_has_the_word_of_who_decided(producer, done)


def leased_by(db: Database, route: str) -> int:
    return int(scalar(db, f"select count(*) from shard where state = 1 and model = '{route}'"))


def waiting_for_second(db: Database) -> int:
    return int(scalar(db, "select count(*) from shard where model = 'detector:large-finder'"))

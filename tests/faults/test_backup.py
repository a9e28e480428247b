"""A dump in the middle of a job, the database dropped, restored into another: the job goes on and counts each text once."""

import pathlib
import shutil
import signal
import subprocess

import psycopg

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.store import verdicts
from guardfleet.store.jobs import views
from tests.conftest import missing
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet
from tests.services.outcome import assert_exactly_once, finished, progressed

TEXTS = [f"text {i}{' [[unsafe]]' if i % 7 == 0 else ''}" for i in range(400)]


def test_a_restored_dump_goes_on_where_it_was_and_loses_nothing(
    postgres: str, database_url: str, empty_database_url: str, redis_broker: str, tmp_path: pathlib.Path
) -> None:
    slow = {"instant_ms_per_batch": 100.0, "shard_texts": 20}
    settings = fleet_settings(database_url, redis_broker, tmp_path, **slow)
    # The same namespace: messages of the lost database are still in the broker.
    anew = fleet_settings(empty_database_url, redis_broker, tmp_path, **slow, namespace=settings.namespace)
    dump = tmp_path / "guardfleet.dump"
    producer = DirectClient.connect(settings)
    job = producer.submit(TEXTS, JobOptions(name="before the dump")).job
    with fleet(settings, tmp_path, ("worker",), ("dispatcher",)) as (worker, _):
        progressed(producer, job, 60)
        worker.signal(signal.SIGSTOP)  # in the middle of its work, so that the job cannot end before a slow dump does
        client("pg_dump", "-Fc", "-d", database_url, "-f", str(dump))
        worker.signal(signal.SIGCONT)
        after_the_dump = views.get(producer.db, job.public_id).done
        progressed(producer, job, min(len(TEXTS), after_the_dump + 20))  # what these wrote is lost with the database
    producer.db.close()
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"drop database {database_url.rsplit('/', 1)[1]} with (force)")

    client("pg_restore", "--no-owner", "--exit-on-error", "-d", empty_database_url, str(dump))
    restored = DirectClient.connect(anew)
    (tmp_path / "second").mkdir()
    try:
        found = views.get(restored.db, job.public_id)
        assert 60 <= found.done <= after_the_dump < found.total == len(TEXTS)
        with fleet(anew, tmp_path / "second", ("worker",), ("dispatcher",)):
            job = finished(restored, found)
        assert_exactly_once(restored, job)
        assert (job.safe, job.unsafe, job.error) == (342, 58, 0)
        assert [row["severity"] for row in verdicts.export(restored.db, job)] == [
            "unsafe" if "unsafe" in text else "safe" for text in TEXTS
        ]
    finally:
        restored.db.close()


def client(name: str, *args: str) -> None:
    """One of PostgreSQL's programs, as the runbook calls it."""
    if shutil.which(name) is None:
        missing(f"no {name} on the PATH: apt-get install postgresql-client")
    ended = subprocess.run([name, *args], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

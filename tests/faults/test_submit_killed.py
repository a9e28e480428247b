"""A submit that dies: the same command resumes it, each line is taken once, and an intake that nobody resumes is abandoned."""

import json
import pathlib
import signal

from guardfleet.client.direct import DirectClient
from guardfleet.domain.states import JobState
from guardfleet.settings import Settings
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.fleet import Process, fleet, until
from tests.services.outcome import assert_exactly_once, finished

N = 120_000


def write(path: pathlib.Path) -> pathlib.Path:
    with path.open("w") as file:
        for i in range(N):
            file.write(json.dumps({"id": f"{i}", "text": f"text {i}"}) + "\n" if i % 1000 else "not JSON\n")
    return path


def taken(db: Database) -> int:
    with db.begin() as connection:
        return int(connection.scalar("select coalesce(sum(total), 0) from job"))


@with_broker("rabbitmq")
def test_a_killed_submit_is_gone_on_with_by_the_same_command(settings: Settings, tmp_path: pathlib.Path) -> None:
    source = str(write(tmp_path / "texts.jsonl"))
    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, ("dispatcher",), ("worker",)):
        submit = Process(settings, "submit", source, log=tmp_path / "first.log")
        until(lambda: 0 < taken(producer.db) < N, what="a part of the texts")
        submit.signal(signal.SIGKILL)
        submit.wait()
        until(lambda: only_job(producer).done, what="work on what is there")
        assert only_job(producer).state is JobState.INGESTING
        again = Process(settings, "submit", source, log=tmp_path / "second.log")
        assert again.wait() == 1  # lines were refused
        done = finished(producer, only_job(producer))
    assert "an earlier submit was interrupted after line" in (tmp_path / "second.log").read_text()
    assert (done.total, done.rejected) == (N - N // 1000, N // 1000)
    assert_exactly_once(producer, done)
    producer.db.close()


@with_broker("rabbitmq")
def test_a_killed_submit_that_nobody_goes_on_with_is_given_up(settings: Settings, tmp_path: pathlib.Path) -> None:
    impatient = settings.but(intake_idle_s=1.0)
    producer = DirectClient.connect(settings)
    submit = Process(impatient, "submit", str(write(tmp_path / "texts.jsonl")), log=tmp_path / "first.log")
    until(lambda: taken(producer.db), what="a part of the texts")
    submit.signal(signal.SIGKILL)
    submit.wait()
    with producer.db.begin() as connection:  # ten seconds later
        connection.execute("update job set intake_lease_until = now() - interval '2 s'")
    with fleet(impatient, tmp_path, ("dispatcher",)):
        job = finished(producer, only_job(producer))
    assert (job.state, job.reason) == (JobState.FAILED, "its submit ended before all of its texts were in")
    producer.db.close()


def only_job(producer: DirectClient) -> views.JobView:
    with producer.db.begin() as connection:
        (public_id,) = connection.execute("select public_id from job").fetchone()
    return views.get(producer.db, public_id)

"""The producer over HTTP: the direct one's methods through a real socket, and what it does if that is cut, busy or slow."""

import asyncio
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from guardfleet.client.http import AsyncClient, Client
from guardfleet.client.protocol import ATTEMPTS, Calls, Wait
from guardfleet.domain.options import JobOptions
from guardfleet.errors import NotFoundError, RejectedError, RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from producer.submit import submit_file
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet
from tests.services.served import served

ROOT = pathlib.Path(__file__).parents[2]
ANSWER = b"""{"id": "batch_1", "status": "in_progress", "request_counts": {"total": 1, "completed": 0, "failed": 0},
             "texts_per_second": 0.0, "eta_seconds": null}"""
MINE = {"project": "née 1"}


@pytest.fixture
def settings(database_url: str, rabbitmq: str, tmp_path: pathlib.Path) -> Settings:
    return fleet_settings(database_url, rabbitmq, tmp_path)


@pytest.fixture
def at(settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    with fleet(settings, tmp_path, ("worker",), ("dispatcher",)), served(settings) as url:
        yield url, keys.create(db, keyring, name="k")


def test_a_whole_job_over_http(at: tuple[str, str], tmp_path: pathlib.Path) -> None:
    url, key = at
    with Client(url, key) as producer:
        batch = producer.submit(
            ["a", {"id": "x", "text": "b [[unsafe]]"}, "lone \ud800"], JobOptions(name="mine", priority=3, metadata=MINE)
        )
        found = {row["id"]: row["severity"] for row in producer.results(batch.id)}
        assert found == {"line:1": "safe", "x": "unsafe", "line:3": "safe"}
        done = producer.status(batch.id)
        assert (done.status, done.total, done.raw["name"], done.raw["priority"]) == ("completed", 3, "mine", 3)
        assert done.raw["metadata"] == MINE
        with pytest.raises(RejectedError, match="A JSON object of at most 16 strings"):
            producer.submit(["a"], JobOptions(metadata={"a": 1}))
        assert [row["id"] for row in producer.results(batch.id, severity="unsafe")] == ["x"]
        csv = tmp_path / "texts.csv"
        csv.write_text("id,text,lang\n1,hello,en\n,,\n3,bye,de\n")
        batch = submit_file(producer, str(csv))
        rows = {row["id"]: row.get("metadata") for row in producer.results(batch.id)}
        assert rows["1"] == {"lang": "en"}
        assert producer.moderate("x [[unsafe]]")["severity"] == "unsafe"
        with pytest.raises(NotFoundError):
            producer.status("batch_" + "0" * 32)
        with pytest.raises(NotFoundError, match="no worker has served"):
            producer.submit(["a"], JobOptions(model="other"))
        with pytest.raises(RejectedError, match="the batch is completed"):
            producer.pause(batch.id)

    async def beside_others() -> list[str]:
        async with AsyncClient(url, key) as producer:
            batch = await producer.submit(["a", "b"])
            return [row["id"] async for row in producer.results(batch.id)]

    assert sorted(asyncio.run(beside_others())) == ["line:1", "line:2"]


def test_the_examples_and_the_command_do_what_they_say(at: tuple[str, str], tmp_path: pathlib.Path) -> None:
    url, key = at
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": "1", "text": "x"}\n{bad\n{"id": "2", "text": "y"}\n')

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"GUARDFLEET_API_KEY": key, "OPENAI_API_KEY": key, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, *args], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    polled = run(str(ROOT / "examples/submit_and_poll.py"), url)
    assert (polled.returncode, polled.stdout.count("judged by"), polled.stdout.split()[-1]) == (0, 3, "completed"), polled.stderr
    batch = run(str(ROOT / "examples/openai_batch.py"), f"{url}/v1")
    assert (batch.returncode, batch.stdout.count("flagged False")) == (0, 2), batch.stderr
    submitted = run("-m", "guardfleet", "submit", str(source), "--url", url, "--wait")
    assert submitted.returncode == 1, submitted.stderr  # one line was refused
    assert submitted.stdout.startswith("batch_")
    without = subprocess.run(
        [sys.executable, "-m", "guardfleet", "submit", str(source), "--url", url], capture_output=True, text=True, check=False
    )
    assert (without.returncode, "GUARDFLEET_API_KEY" in without.stderr) == (2, True)


def response(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers=headers, content=ANSWER if status == 200 else b'{"detail": "no"}')


def walk(said: list[httpx2.Response | httpx2.TransportError]) -> tuple[list[float], object]:
    """The pauses that a call makes when this is what it is told, and how it ends."""
    calls = Calls(patience_s=900, clock=lambda: 0.0, rng=lambda: 0.0)
    steps, pauses, answers = calls.status("batch_1"), [], iter(said)
    step = next(steps)
    try:
        while True:
            if isinstance(step, Wait):
                pauses.append(step.seconds)
                step = steps.send(None)
            else:
                step = steps.send(next(answers))
    except StopIteration as end:
        return pauses, end.value
    except (RejectedError, RetryableError) as error:
        return pauses, error


def test_being_told_to_come_back_costs_no_attempt() -> None:
    busy = [response(429, **{"retry-after": "7"})] * 50
    pauses, ended = walk([*busy, response(200)])
    assert (pauses, getattr(ended, "id", None)) == ([7.0] * 50, "batch_1")


def test_failures_are_waited_out_longer_and_longer_and_then_said() -> None:
    pauses, ended = walk([httpx2.ConnectError("x"), response(503, **{"retry-after": "9"}), response(200)])
    assert (pauses, getattr(ended, "id", None)) == ([0.25, 9.0], "batch_1")
    pauses, ended = walk([response(500)] * 99)
    assert isinstance(ended, RetryableError)
    assert len(pauses) == ATTEMPTS - 1
    assert pauses == sorted(pauses)
    for status, error in ((400, RejectedError), (404, NotFoundError), (401, RejectedError), (422, RejectedError)):
        pauses, ended = walk([response(status)])
        assert isinstance(ended, error)
        assert pauses == []
    unreached = httpx2.ConnectError("x", request=httpx2.Request("GET", "http://user:hunter2@host:8080/v1/batches"))
    said = str(walk([unreached] * 99)[1])
    assert said == "the API host:8080 did not answer (ConnectError): is it running, and is its URL right?"
    assert isinstance(walk([response(409, **{"x-should-retry": "false"})])[1], RejectedError)


def test_a_submit_whose_answer_was_lost_is_found_again(settings: Settings, db: Database, keyring: Keyring) -> None:
    key = keys.create(db, keyring, name="k")

    class Losing(httpx2.HTTPTransport):
        lost = 0

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            found = super().handle_request(request)
            if request.method == "POST" and not self.lost:
                self.lost += 1
                found.read()
                raise httpx2.ReadError("the answer is lost")
            return found

    transport = Losing()
    with served(settings) as url, Client(url, key, transport=transport) as producer:
        batch = producer.submit(["a", "b"])
        assert transport.lost == 1
        assert batch.total == 2
    with db.begin() as connection:
        assert connection.scalar("select count(*) from job") == 1

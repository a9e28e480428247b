"""A retry on every face is the same retry: commands, clients beside the database and over HTTP, sync and async."""

import asyncio
import inspect
import json
import pathlib
import re
from collections.abc import Iterator

import httpx2
import pytest

from guardfleet.client.asynchronous import AsyncDirectClient
from guardfleet.client.direct import DirectClient
from guardfleet.client.http import AsyncClient, Client
from guardfleet.domain import ids
from guardfleet.domain.options import JobOptions
from guardfleet.domain.verdict import failure
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.jobs import control, views
from guardfleet.store.postgres.database import Database
from tests.services.commands import said
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judge, served
from tests.services.stored import scalar

FAILED = failure("engine_failed", "x")
FACES = ("command", "command --url", "direct", "async direct", "http", "async http")


@pytest.fixture
def beside(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, quota="100/hour", price_per_device_hour=3.6
    )


@pytest.fixture
def at(beside: Settings, db: Database, keyring: Keyring) -> Iterator[tuple[str, str]]:
    with served(beside) as url:
        yield url, keys.create(db, keyring, name="k")


def failed_job(beside: Settings, db: Database, keyring: Keyring) -> str:
    """An ended job of three texts without a verdict."""
    made = DirectClient(db, keyring, beside).submit(["a", "b", "c"], JobOptions(name="mine", priority=4))
    judge(db, made.id, judgement=FAILED)
    return made.id


def asked(face: str, of: str, beside: Settings, at: tuple[str, str], *codes: str) -> str:
    """The id of the new job, without its prefix."""
    url, key = at

    async def in_a_loop() -> str:
        if face == "async http":
            async with AsyncClient(url, key) as client:
                return (await client.retry(of, error=codes)).id
        async with await AsyncDirectClient.connect(beside) as direct:
            return (await direct.retry(of, error=codes)).id

    typed = [part for code in codes for part in ("--error", code)]
    if face == "command":
        label = said(beside, "retry", of, *typed).stdout
    elif face == "command --url":
        label = said(load_settings(data_dir=beside.data_dir, api_key=key), "retry", of, "--url", url, *typed).stdout
    elif face == "direct":
        with DirectClient.connect(beside) as direct:
            label = direct.retry(of, error=codes).id
    elif face == "http":
        with Client(url, key) as client:
            label = client.retry(of, error=codes).id
    else:
        label = asyncio.run(in_a_loop())
    found = re.search(r"^(job|batch)_[0-9a-f]{32}$", label, re.MULTILINE)  # the API in this process may log to the same stream
    assert found is not None, label
    return ids.JOB.parse(found[0]).hex


def test_a_retry_is_the_same_on_every_face(beside: Settings, at: tuple[str, str], db: Database, keyring: Keyring) -> None:
    of = failed_job(beside, db, keyring)
    made = {asked(face, of, beside, at, "engine_failed", "abandoned") for face in FACES}
    assert len(made) == 1  # until it has ended
    assert scalar(db, "select count(*) from job") == 2
    job = views.get(db, ids.JOB.parse(made.pop()))
    assert (job.total, job.name, job.priority, job.retry_of) == (3, "mine", 4, ids.JOB.parse(of))
    signatures = {inspect.signature(kind.retry).replace(return_annotation=None) for kind in (DirectClient, Client)}
    signatures |= {inspect.signature(kind.retry).replace(return_annotation=None) for kind in (AsyncDirectClient, AsyncClient)}
    assert len(signatures) == 1


def test_both_jobs_show_the_other_and_their_cost(beside: Settings, db: Database, keyring: Keyring) -> None:
    of = failed_job(beside, db, keyring)
    with db.begin() as connection:
        connection.execute("update job set device_s = 500")
    with served(beside) as url, Client(url, keys.create(db, keyring, name="k")) as client:
        made = client.retry(of)
        assert (made.raw["retry_of"], made.raw["retries"]) == (of.replace("job_", "batch_"), [])
        first = client.status(of)
        assert (first.raw["retry_of"], first.raw["retries"]) == (None, [made.id])
        assert (first.raw["device_seconds"], first.raw["cost"]) == (500.0, 0.5)
        assert client.jobs()[1].raw["cost"] == 0.5
    label = ids.JOB.of(ids.JOB.parse(made.id))
    shown = json.loads(said(beside, "status", of, "--json").stdout)
    assert (shown["retries"], shown["device_seconds"], shown["cost"]) == ([label], 500.0, 0.5)
    listed = [json.loads(line) for line in said(beside, "jobs", "--json").stdout.splitlines()]
    assert [(one["job"], one["retry_of"], one["retries"]) for one in listed] == [(label, of, []), (of, None, [label])]
    assert "500.0 device seconds, cost 0.5" in said(beside, "status", of).stdout
    assert f"retry of {of}" in said(beside, "status", label).stdout


def test_results_with_retries_have_each_text_once(beside: Settings, at: tuple[str, str], db: Database, keyring: Keyring) -> None:
    of = failed_job(beside, db, keyring)
    with Client(*at) as client:
        judge(db, client.retry(of).id)
    out = beside.data_dir / "out.jsonl"
    assert said(beside, "results", of, "--with-retries", "-o", str(out)).returncode == 0
    union = out.read_text()
    assert [json.loads(line)["severity"] for line in union.splitlines()] == ["unsafe"] * 3
    said(beside, "results", of, "-o", str(out))
    assert [json.loads(line)["severity"] for line in out.read_text().splitlines()] == ["error"] * 3
    url, key = at
    found = httpx2.get(f"{url}/v1/batches/{of}/download?with_retries=true", headers={"authorization": f"Bearer {key}"})
    assert found.text == union


def test_the_same_key_makes_one_retry_and_a_quota_counts_it_once(
    beside: Settings, at: tuple[str, str], db: Database, keyring: Keyring
) -> None:
    of, (url, key) = failed_job(beside, db, keyring), at
    headers = {"authorization": f"Bearer {key}", "idempotency-key": "mine"}
    made = httpx2.post(f"{url}/v1/batches/{of}/retry", headers=headers)
    assert made.status_code == 200, made.text
    judge(db, made.json()["id"], judgement=FAILED)
    repeated = httpx2.post(f"{url}/v1/batches/{of}/retry", headers=headers)
    assert (repeated.json()["id"], repeated.json()["status"]) == (made.json()["id"], "completed")
    other = httpx2.post(f"{url}/v1/batches/{of}/retry?error=unparsed", headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    newer = httpx2.post(f"{url}/v1/batches/{of}/retry", headers=headers | {"idempotency-key": "another"})
    assert newer.json()["id"] != made.json()["id"]
    assert '"texts";r=94' in newer.headers["ratelimit"]  # three texts, twice


def test_what_cannot_be_retried_is_an_error_that_says_why(
    beside: Settings, at: tuple[str, str], db: Database, keyring: Keyring
) -> None:
    of = DirectClient(db, keyring, beside).submit(["a"]).id
    with Client(*at) as client:
        with pytest.raises(RejectedError, match="409: the batch has not ended"):
            client.retry(of)
        control.cancel(db, views.get(db, ids.JOB.parse(of)).id)
        with pytest.raises(RejectedError, match="has no failed texts"):  # a text that was never judged has not failed
            client.retry(of)
        with pytest.raises(RejectedError, match="no error code 'odd'; use one of unparsed"):
            client.retry(of, error=["odd"])
    with Client(at[0], keys.create(db, keyring, name="o", tenant="other")) as stranger, pytest.raises(NotFoundError):
        stranger.retry(of)
    failed = said(beside, "retry", of)
    assert (failed.returncode, "has no failed texts" in failed.stderr) == (2, True)

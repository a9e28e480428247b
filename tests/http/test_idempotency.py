"""An Idempotency-Key covers the lines of a body: the same lines make one batch, however they are packed; others are refused."""

import asyncio
import gzip
import json
import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest
from backports import zstd
from httpx2 import ASGITransport, AsyncClient
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from api.body import inline_lines
from api.http import idempotency as answered
from api.server import create_app
from guardfleet.domain import ids
from guardfleet.jobs import intake
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.stored import scalar

JSONL = {"content-type": "application/jsonl"}
KEYED = JSONL | {"idempotency-key": "k"}


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=4)


@pytest.fixture
def bearer(db: Database, keyring: Keyring) -> dict[str, str]:
    return {"authorization": f"Bearer {keys.create(db, keyring, name='test')}"}


@pytest.fixture
def client(api_settings: Settings, bearer: dict[str, str]) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings), raise_server_exceptions=False, headers=bearer) as made:
        yield made


async def come_true(db: Database, query: str) -> None:
    for _ in range(1000):
        if scalar(db, query):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(query)


def lines(*names: str) -> bytes:
    return b"".join(json.dumps({"id": name, "text": f"text {name}"}).encode() + b"\n" for name in names)


def test_the_same_lines_make_one_batch_however_they_are_packed(client: TestClient, db: Database) -> None:
    body = lines("a", "b", "c")
    first = client.post("/v1/batches?name=n", content=body, headers=KEYED).json()["id"]
    for packed, encoding in ((body, "identity"), (gzip.compress(body), "gzip"), (zstd.compress(body), "zstd")):
        again = client.post("/v1/batches?name=n", content=packed, headers=KEYED | {"content-encoding": encoding})
        assert (again.status_code, again.json()["id"]) == (200, first)
    assert [str(job.public_id) for job in views.page(db, tenant_id=1, after=None, limit=9)] == [str(ids.JOB.parse(first))]


@pytest.mark.parametrize("body", [lines("x", "y"), lines("a", "b"), lines("a", "b", "c", "d"), b"", lines("a", "c", "b")])
def test_other_lines_under_the_same_key_are_refused(client: TestClient, db: Database, body: bytes) -> None:
    client.post("/v1/batches", content=lines("a", "b", "c"), headers=KEYED)
    other = client.post("/v1/batches", content=body, headers=KEYED)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"
    assert scalar(db, "select count(*) from job") == 1


@pytest.mark.parametrize("made", ["job", "file"])
def test_what_is_made_of_a_file_is_made_with_its_record_or_not_at_all(client: TestClient, db: Database, made: str) -> None:
    form = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", lines("a"))}}
    file_id = client.post("/v1/files", **form).json()["id"]  # type: ignore[arg-type]
    with db.begin() as connection:  # what records it ends here
        connection.execute("alter table repeat add check (subject is null or token < 0) not valid")
    asked = {"input_file_id": file_id, "endpoint": "/v1/moderations", "completion_window": "24h"}
    keyed = {"idempotency-key": "k"}
    answer = (
        client.post("/v1/batches", json=asked, headers=keyed) if made == "job" else client.post("/v1/files", headers=keyed, **form)
    )  # type: ignore[arg-type]
    assert answer.status_code == 500
    assert scalar(db, "select count(*) from job") == 0
    assert scalar(db, "select count(*) from file where state = 1") == 1


def test_a_batch_that_a_quota_refuses_may_be_asked_for_again(api_settings: Settings, bearer: dict[str, str], db: Database) -> None:
    settings = api_settings.but(quota="1/day")
    with TestClient(create_app(settings), headers=bearer) as client:
        form = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", lines("a", "b"))}}
        asked = {"input_file_id": client.post("/v1/files", **form).json()["id"], "endpoint": "/v1/moderations"}  # type: ignore[arg-type]
        for _ in range(2):
            refused = client.post("/v1/batches", json=asked, headers={"idempotency-key": "q"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert scalar(db, "select count(*) from job where state = 5") == 2


def test_options_in_the_url_of_a_batch_of_a_file_are_refused(client: TestClient) -> None:
    asked = {"input_file_id": "file-x", "endpoint": "/v1/moderations"}
    answer = client.post("/v1/batches?allow_empty=true", json=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "allow_empty")
    assert "into the body" in answer.json()["detail"]


def test_work_on_a_slow_body_starts_with_what_has_come(
    api_settings: Settings, bearer: dict[str, str], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (inline_lines, intake):
        monkeypatch.setattr(module, "COMMIT_S", 0.0)

    async def slow() -> AsyncIterator[bytes]:
        yield lines("a")
        await come_true(db, "select count(*) from shard")
        yield lines("b")

    async def run() -> None:
        app = create_app(api_settings)
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app=app), base_url="http://api", headers=bearer) as client,
        ):
            made = await client.post("/v1/batches", content=slow(), headers=JSONL)
            assert made.json()["request_counts"]["total"] == 2

    asyncio.run(run())


def test_what_is_asked_beside_the_lines_is_covered_too(client: TestClient) -> None:
    secret = "whsec_" + "A" * 32
    to = "?callback_url=https://example.com/x"
    body = lines("a")
    client.post(f"/v1/batches{to}", content=body, headers=KEYED | {"guardfleet-callback-secret": secret})
    for query, more in ((f"{to}&strict=true", {"guardfleet-callback-secret": secret}), (to, {})):
        other = client.post(f"/v1/batches{query}", content=body, headers=KEYED | more)
        assert other.json()["error"]["code"] == "idempotency_key_reused"


def test_a_repeat_is_refused_as_long_as_the_first_is_at_it_and_one_that_breaks_off_makes_nothing(
    api_settings: Settings, bearer: dict[str, str], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answered, "ALIVE_S", 0.01)

    async def run() -> None:
        app = create_app(api_settings)
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield lines("a")
            begun.set()
            await goes_on.wait()
            yield lines("b")

        async def broken() -> AsyncIterator[bytes]:
            yield lines("z")
            raise ClientDisconnect

        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app=app), base_url="http://api", headers=bearer) as client,
        ):
            assert (await client.post("/v1/batches", content=broken(), headers=KEYED)).status_code == 500  # which nobody reads
            first = asyncio.create_task(client.post("/v1/batches", content=slow(), headers=KEYED))
            await begun.wait()
            with db.begin() as connection:
                connection.execute("update repeat set created_at = now() - interval '59 seconds'")
            await come_true(db, "select created_at > now() - interval '50 seconds' from repeat")
            meanwhile = await client.post("/v1/batches", content=lines("a", "b"), headers=KEYED)
            assert (meanwhile.status_code, meanwhile.json()["error"]["code"]) == (409, "in_progress")
            goes_on.set()
            made = (await first).json()
            assert made["request_counts"]["total"] == 2
            assert (await client.post("/v1/batches", content=lines("a", "b"), headers=KEYED)).json()["id"] == made["id"]

    asyncio.run(run())
    assert scalar(db, "select count(*) from job where state = 1") == 1


def test_one_that_was_silent_for_too_long_makes_no_second_batch(
    api_settings: Settings, bearer: dict[str, str], db: Database
) -> None:
    async def run() -> None:
        app = create_app(api_settings)
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            await goes_on.wait()
            yield lines("a")

        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app=app), base_url="http://api", headers=bearer) as client,
        ):
            first = asyncio.create_task(client.post("/v1/batches", content=slow(), headers=KEYED))
            await begun.wait()
            await come_true(db, "select count(*) from repeat")
            with db.begin() as connection:
                connection.execute("update repeat set created_at = now() - interval '61 seconds'")
            second = await client.post("/v1/batches", content=lines("a"), headers=KEYED)
            goes_on.set()
            assert (second.status_code, (await first).status_code) == (200, 400)

    asyncio.run(run())
    assert scalar(db, "select count(*) from job where state = 1") == 1

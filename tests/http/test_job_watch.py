"""Callers that wait for news of a batch: one poll serves all, each learns of every change, and slots per key are limited."""

import asyncio
import json
import pathlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from httpx2 import ASGITransport, AsyncClient

from api.http.long_requests import Slots
from api.server import create_app
from api.services.job_watch import Watching
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.patience import patience
from tests.services.served import judge, served
from tests.services.stored import submit

JSONL = {"content-type": "application/jsonl"}
ROWS = b"".join(json.dumps({"id": str(i), "text": "x"}).encode() + b"\n" for i in range(8))


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=4, api_max_waiting=4)


def run(settings: Settings, bearer: str, body: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        app = create_app(settings)
        headers = {"authorization": f"Bearer {bearer}"}
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app=app), base_url="http://api", headers=headers, timeout=patience(60)) as client,
        ):
            await body(client)

    asyncio.run(main())


def test_many_who_wait_cost_one_look_and_are_all_told(
    api_settings: Settings, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = api_settings.but(api_max_waiting=100)
    looks: list[int] = []
    real, one_by_one = views.get_all, views.get
    singles: list[int] = []

    def get_all(db: Database, job_ids: Any) -> Any:
        looks.append(len(job_ids))
        return real(db, job_ids)

    def get(*args: Any, **kwargs: Any) -> Any:
        singles.append(1)
        return one_by_one(*args, **kwargs)

    monkeypatch.setattr(views, "get_all", get_all)
    monkeypatch.setattr(views, "get", get)

    async def body(client: AsyncClient) -> None:
        batch = (await client.post("/v1/batches", content=ROWS, headers=JSONL)).json()["id"]
        url = f"/v1/batches/{batch}/results"
        waiting = [asyncio.create_task(client.get(url, headers={"Prefer": "wait=50"})) for _ in range(40)]
        streams = [asyncio.create_task(client.get(f"/v1/batches/{batch}/events")) for _ in range(40)]
        await asyncio.to_thread(until, lambda: sum(looks) > 4 and len(singles) >= 80)
        before = len(singles)
        await asyncio.sleep(0)
        assert max(looks) == 1  # one job, however many wait for it
        assert len(singles) == before
        await asyncio.to_thread(judge, db, batch, 0)
        assert {len((await task).json()["data"]) for task in waiting} == {4}
        await asyncio.to_thread(judge, db, batch, 1)
        said = [(await task).text for task in streams]
        assert all(text.count("event: batch.ended") == 1 and '"completed":8' in text for text in said)

    run(many, keys.create(db, keyring, name="k"), body)


def test_who_comes_while_postgres_answers_is_not_told_that_the_job_has_gone(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (views.get_by_id(db, submit(db, keyring, 1).id) for _ in range(2))
    asked: list[list[int]] = []
    goes_on, real = threading.Event(), views.get_all

    def get_all(db: Database, job_ids: Any) -> Any:
        asked.append(list(job_ids))
        assert goes_on.wait(patience(60))
        return real(db, job_ids)

    monkeypatch.setattr(views, "get_all", get_all)

    async def body() -> None:
        watching = Watching(db, Slots("waiting", of_key=10, in_all=10))
        before = asyncio.create_task(watching.news(first, within_s=60))
        await asyncio.to_thread(until, lambda: asked, what="a look")
        behind = asyncio.create_task(watching.news(second, within_s=60))
        await asyncio.sleep(0)
        goes_on.set()
        await asyncio.to_thread(until, lambda: len(asked) > 2, what="the looks behind it")
        assert asked[:2] == [[first.id], [first.id, second.id]]
        assert not before.done()
        assert not behind.done()
        watching.stop()
        for task in (before, behind):
            task.cancel()

    asyncio.run(body())


def test_a_key_has_so_many_places_and_gets_them_back(api_settings: Settings, db: Database, keyring: Keyring) -> None:
    key = keys.create(db, keyring, name="k")
    headers = {"authorization": f"Bearer {key}"}
    with served(api_settings) as url, httpx2.Client(base_url=url, headers=headers, timeout=patience(60)) as client:
        batch = client.post("/v1/batches", content=ROWS, headers=JSONL).json()["id"]
        streams = [client.stream("GET", f"/v1/batches/{batch}/events") for _ in range(4)]
        said = [stream.__enter__().iter_lines() for stream in streams]
        assert [next(lines) for lines in said] == ["retry: 2000"] * 4
        for path in (f"/v1/batches/{batch}/events", f"/v1/batches/{batch}/results"):
            refused = client.get(path, headers={"Prefer": "wait=50"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_waiting")
            assert int(refused.headers["retry-after"]) > 0
        assert client.get(f"/v1/batches/{batch}/results").status_code == 200  # that does not wait
        other = {"authorization": f"Bearer {keys.create(db, keyring, name='other')}"}
        judge(db, batch)
        assert client.get(f"/v1/batches/{batch}/events", headers=other).text.count("batch.ended") == 1
        assert all("event: batch.ended" in lines for lines in said)
        for stream in streams:
            stream.__exit__(None, None, None)
        until(lambda: client.get(f"/v1/batches/{batch}/events").status_code == 200, what="a slot")

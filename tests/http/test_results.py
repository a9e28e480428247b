"""Results over HTTP: filters, waiting for news, live progress, downloads; and how often a caller may ask."""

import csv
import io
import json
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.http.rate_limit import RETRIED_S
from api.server import create_app
from api.services.job_watch import Watching
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import idempotency, keys
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import SAFE, answered, failed
from tests.services.served import judge

JSONL = {"content-type": "application/jsonl"}
DAY_S = 86_400
SOME = answered("Safety: Controversial\nCategories: Sexual Content or Sexual Acts, PII")
PII = answered("Safety: Unsafe\nCategories: PII")


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url,
        secret_key=SECRET_KEY,
        data_dir=tmp_path,
        shard_texts=4,
        namespace=f"gftest_{uuid.uuid4().hex[:10]}",
    )


@pytest.fixture
def client(api_settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="test")
    with TestClient(create_app(api_settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


def submit(client: TestClient, n: int) -> str:
    lines = "\n".join(json.dumps({"id": f"r{i}", "text": f"text {i}"}) for i in range(n))
    return str(client.post("/v1/batches?allow_empty=true", content=lines, headers=JSONL).json()["id"])


def ids(client: TestClient, batch: str, query: str) -> list[str]:
    """All pages of a filter."""
    found: list[str] = []
    page = {"next": "", "has_more": True}
    while page["has_more"]:
        after = f"&after={page['next']}" if page["next"] else ""
        page = client.get(f"/v1/batches/{batch}/results?{query}{after}").json()
        found += [row["id"] for row in page["data"]]  # type: ignore[attr-defined]
    return found


def test_a_filter_finds_all_of_its_verdicts_and_no_other(client: TestClient, db: Database) -> None:
    batch = submit(client, 200)
    for no in range(50):
        judge(db, batch, no, judgement=(SAFE, SOME, failed("engine_failed"), PII)[no % 4])
    groups = {
        name: [f"r{i}" for i in range(200) if i // 4 % 4 == rest] for rest, name in enumerate(("safe", "some", "error", "unsafe"))
    }
    for query, expected in (
        ("severity=safe&limit=7", groups["safe"]),
        ("severity=unsafe&severity=error", sorted(groups["unsafe"] + groups["error"], key=lambda row: int(row[1:]))),
        ("category=PII&limit=3", sorted(groups["unsafe"] + groups["some"], key=lambda row: int(row[1:]))),
        ("category=PII&severity=controversial", groups["some"]),
        ("category=Violent", []),
        ("status=failed", groups["error"]),
        (f"since={time.time() + 60}", []),
        (f"since={time.time() - 600}&limit=50", [f"r{i}" for i in range(200)]),
    ):
        assert ids(client, batch, query) == expected, query
    assert client.get(f"/v1/batches/{batch}/results?category=Bad").json()["error"]["code"] == "unknown_category"


Waited = Callable[..., None]


@pytest.fixture
def once_waited_for(monkeypatch: pytest.MonkeyPatch) -> Waited:
    """One thing is done, in another thread, each time that a caller waits for news."""
    todo: list[Callable[[], None]] = []
    waits = Watching.news

    def news(self: Watching, job: JobView, *, within_s: float) -> Coroutine[Any, Any, JobView]:
        if todo:
            threading.Thread(target=todo.pop(0)).start()
        return waits(self, job, within_s=within_s)

    monkeypatch.setattr(Watching, "news", news)
    return lambda *deeds: todo.extend(deeds)


def test_an_empty_page_waits_for_news(client: TestClient, db: Database, once_waited_for: Waited) -> None:
    batch = submit(client, 8)
    once_waited_for(lambda: judge(db, batch, 0))
    answer = client.get(f"/v1/batches/{batch}/results", headers={"prefer": "wait=20"})
    assert len(answer.json()["data"]) == 4
    assert answer.headers["preference-applied"] == "wait=20"
    after = answer.json()["next"]
    empty = client.get(f"/v1/batches/{batch}/results?after={after}", headers={"prefer": "wait=1"}).json()
    assert (empty["data"], empty["complete"], empty["next"]) == ([], False, after)
    judge(db, batch, 1)
    assert client.get(f"/v1/batches/{batch}/results?after={after}", headers={"prefer": "wait=20"}).json()["complete"] is True
    last = client.get(f"/v1/batches/{batch}/results", headers={"prefer": "wait=20"}).json()
    assert (len(last["data"]), last["complete"]) == (8, True)


def test_progress_is_told_until_the_end(client: TestClient, db: Database, once_waited_for: Waited) -> None:
    batch = submit(client, 8)
    once_waited_for(lambda: judge(db, batch, 0), lambda: judge(db, batch, 1))
    with client.stream("GET", f"/v1/batches/{batch}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    done = [json.loads(line.removeprefix("data: "))["request_counts"]["completed"] for line in lines if line.startswith("data: ")]
    assert (kinds[-1], done) == ("batch.ended", [0, 4, 8])


def test_a_stream_that_was_lost_goes_on_behind_its_last_event(client: TestClient, db: Database, once_waited_for: Waited) -> None:
    batch = submit(client, 8)
    url = f"/v1/batches/{batch}/events"

    def told(last: str | None) -> tuple[list[str], list[str]]:
        said = client.get(url, headers={} if last is None else {"last-event-id": last}).text.splitlines()
        return [line.removeprefix("id: ") for line in said if line.startswith("id: ")], [
            line.removeprefix("event: ") for line in said if line.startswith("event: ")
        ]

    once_waited_for(lambda: judge(db, batch, 0), lambda: judge(db, batch, 1))
    ids, kinds = told(None)
    assert kinds == ["batch.progress", "batch.progress", "batch.ended"]
    assert len(set(ids)) == 3
    for last in (ids[0], ids[1], "", "nobody's"):
        assert told(last) == ([ids[2]], ["batch.ended"])  # the state now, not each one on the way
    ended = client.get(url, headers={"last-event-id": ids[2]})
    assert (ended.status_code, ended.content) == (204, b"")


def test_who_has_seen_the_present_state_is_told_of_the_next(client: TestClient, db: Database, once_waited_for: Waited) -> None:
    batch = submit(client, 8)
    judge(db, batch, 0)
    once_waited_for(lambda: judge(db, batch, 1))
    first = client.get(f"/v1/batches/{batch}/events").text
    seen = next(line for line in first.splitlines() if line.startswith("id: ")).removeprefix("id: ")
    other = submit(client, 8)
    judge(db, other, 0)
    once_waited_for(lambda: judge(db, other, 1))
    said = client.get(f"/v1/batches/{other}/events", headers={"last-event-id": seen}).text
    assert said.startswith("retry: 2000\n: still there\n\n")
    assert [line for line in said.splitlines() if line.startswith("event:")] == ["event: batch.ended"]


def test_downloads_hold_the_same_in_each_format(client: TestClient, db: Database) -> None:
    batch = submit(client, 8)
    judge(db, batch, 0, judgement=PII)
    judge(db, batch, 1, judgement=SAFE)

    def had(fmt: str, query: str = "") -> bytes:
        answer = client.get(f"/v1/batches/{batch}/download?format={fmt}{query}")
        assert f'.{fmt}"' in answer.headers["content-disposition"]
        return answer.content

    lines = [json.loads(line) for line in had("jsonl").splitlines()]
    table = pq.read_table(io.BytesIO(had("parquet")))
    rows = list(csv.DictReader(io.StringIO(had("csv").decode())))
    assert (
        [row["id"] for row in lines] == table.column("id").to_pylist() == [row["id"] for row in rows] == [f"r{i}" for i in range(8)]
    )
    assert lines[0]["categories"] == table.column("categories").to_pylist()[0] == rows[0]["categories"].split("; ")
    assert len(had("jsonl", "&min_severity=controversial").splitlines()) == 4
    empty = submit(client, 0)
    for fmt in ("jsonl", "csv", "parquet"):
        assert client.get(f"/v1/batches/{empty}/download?format={fmt}").status_code == 200


@pytest.mark.parametrize("shared", [False, True])
def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    api_settings: Settings, db: Database, keyring: Keyring, redis_broker: str, shared: bool
) -> None:
    together = SecretStr(redis_broker) if shared else None
    limited = api_settings.but(rate_limit="5/minute", rate_limit_url=together)
    busy, calm = (keys.create(db, keyring, name=name) for name in ("busy", "calm"))
    with TestClient(create_app(limited)) as first, TestClient(create_app(limited)) as second:
        for n in range(5):
            answer = first.get("/v1/batches", headers={"authorization": f"Bearer {busy}"})
            assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, str(4 - n))
            assert answer.headers["ratelimit-policy"] == '"requests";q=5;w=60'
        for client, is_refused in ((first, True), (second, shared)):
            answer = client.get("/v1/batches", headers={"authorization": f"Bearer {busy}"})
            assert (answer.status_code == 429) is is_refused
            if is_refused:
                assert 0 < int(answer.headers["retry-after"]) <= 60
                assert (answer.json()["error"]["code"], answer.headers["x-should-retry"]) == ("rate_limit_exceeded", "true")
        assert first.get("/v1/batches", headers={"authorization": f"Bearer {calm}"}).status_code == 200


@pytest.mark.parametrize("shared", [False, True])
def test_a_quota_counts_texts_whichever_way_they_come(
    api_settings: Settings, db: Database, keyring: Keyring, redis_broker: str, shared: bool
) -> None:
    together = SecretStr(redis_broker) if shared else None
    limited = api_settings.but(quota="10/day", rate_limit_url=together)
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    four = b'{"text": "a"}\n{"text": "b"}\n\n{"text": "c"}\n{"text": "d"}'
    with TestClient(create_app(limited), headers=headers) as client:
        given = client.post("/v1/batches", content=four, headers=JSONL)
        assert (given.status_code, given.headers["x-ratelimit-remaining-texts"]) == (200, "6")
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("f.jsonl", four.replace(b"\n\n", b"\n"))}).json()
        asked = {"input_file_id": file["id"], "endpoint": "/v1/moderations", "completion_window": "24h"}
        made = client.post("/v1/batches", json=asked)
        assert (made.status_code, made.headers["ratelimit"].split(";")[:2]) == (200, ['"texts"', "r=2"])
        nul = client.post("/v1/batches", json=asked | {"webhook_metadata": {"a": "\0"}})
        assert nul.status_code == 422
        for refused in (
            client.post("/v1/moderations", json={"input": ["a", "b", "c"]}),
            client.post("/v1/batches", content=four, headers=JSONL),
            client.post("/v1/batches", json=asked | {"metadata": {"not": "the same"}}),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
            wait_s = int(refused.headers["retry-after"])  # until the window ends: at midnight UTC, or a day after its first text
            assert 0 < wait_s <= DAY_S
            assert refused.headers["ratelimit"].endswith(f'"texts";r=2;t={wait_s}')
            assert refused.headers["x-should-retry"] == ("true" if wait_s <= RETRIED_S else "false")
            assert refused.headers["x-ratelimit-remaining-texts"] == "2"  # what is refused takes nothing
        statuses = [batch["status"] for batch in client.get("/v1/batches").json()["data"]]
        assert statuses[:2] == ["failed", "failed"]
        assert "failed" not in statuses[2:]


def test_a_limit_whose_store_is_away_refuses_nobody(api_settings: Settings, db: Database, keyring: Keyring) -> None:
    limited = api_settings.but(rate_limit="1/minute", rate_limit_url=SecretStr("redis://127.0.0.1:1/0"))
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    with TestClient(create_app(limited)) as client:
        assert [client.get("/v1/batches", headers=headers).status_code for _ in range(3)] == [200, 200, 200]


def test_of_the_same_request_at_the_same_time_one_goes_on(db: Database) -> None:
    key, asked = b"k" * 32, b"f" * 32

    def begin(fingerprint: bytes = asked) -> idempotency.Mine | idempotency.Earlier | None:
        return idempotency.begin(db, tenant_id=1, key=key, fingerprint=fingerprint, memory_s=60)

    def settle(token: int, subject: str) -> None:
        with db.begin() as connection:
            idempotency.settle(connection, tenant_id=1, key=key, token=token, subject=subject, body=b"b" * 32)

    def grow_old() -> None:
        with db.begin() as connection:
            connection.execute("update repeat set created_at = now() - interval '61 seconds'")

    assert begin() == idempotency.Mine(0)
    assert begin() == idempotency.Earlier(asked, None, None)  # while the first is at it
    idempotency.forget(db, tenant_id=1, key=key, token=0)
    assert begin() == idempotency.Mine(0)
    grow_old()
    assert idempotency.renew(db, tenant_id=1, key=key, token=0)
    assert begin() == idempotency.Earlier(asked, None, None)  # it gave a sign of life
    settle(0, "batch_1")
    assert begin(b"o" * 32) == idempotency.Earlier(asked, "batch_1", b"b" * 32)
    grow_old()
    assert begin() == idempotency.Mine(1)  # its time is over
    grow_old()
    assert begin() == idempotency.Mine(2)  # the one that was at it was cut off
    assert not idempotency.renew(db, tenant_id=1, key=key, token=1)
    idempotency.forget(db, tenant_id=1, key=key, token=1)  # says nothing of its successor
    with pytest.raises(RejectedError):
        settle(1, "batch_2")
    settle(2, "batch_3")
    assert begin() == idempotency.Earlier(asked, "batch_3", b"b" * 32)
    assert idempotency.forget_old(db, older_than_s=-1) == 1
    assert views.page(db, tenant_id=1, after=None, limit=5) == []

"""Bodies without an end, bodies without a key, and bodies nested without an end."""

import asyncio
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from api.google.errors import PLACES
from api.server import create_app
from guardfleet.errors import RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.hostile import code_in

CHUNK = b"x" * (32 << 10)
LIMIT = 1 << 20
ROUTES = ("/v1/moderations", "/v1/moderate", "/v1alpha1/comments:analyze", "/v1/webhook_endpoints", "/v1/batches", "/v1/files")


@pytest.fixture
def client(database_url: str, tmp_path: pathlib.Path) -> Iterator[TestClient]:
    bounds = {"api_max_json_bytes": LIMIT, "api_max_body_bytes": LIMIT, "files_max_bytes": LIMIT}
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, **bounds)
    with TestClient(create_app(settings)) as made:
        yield made


def post_without_end(client: TestClient, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], int]:
    """Status, answer, and how many bytes were read before it."""
    read, sent = 0, list[Message]()

    async def receive() -> Message:
        nonlocal read
        read += len(CHUNK)
        assert read < 64 * LIMIT, "it reads on and on"
        return {"type": "http.request", "body": CHUNK, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(client.app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent)), read


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_without_an_end_is_not_read_to_it(client: TestClient, db: Database, keyring: Keyring, path: str) -> None:
    kind = "multipart/form-data; boundary=b" if path == "/v1/files" else "application/json"
    key = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    status, body, read = post_without_end(client, path, {"content-type": kind})
    assert (status, code_in(body)) == ((403, "credentials_missing") if path.startswith(PLACES) else (401, "invalid_api_key"))
    assert read <= 4 * len(CHUNK)
    status, body, read = post_without_end(client, path, {"content-type": kind} | key)
    assert status == (400 if path == "/v1/files" else 413), body
    assert read <= LIMIT + 4 * len(CHUNK)


def test_a_body_that_says_it_is_too_long_is_not_read(client: TestClient, db: Database, keyring: Keyring) -> None:
    said = {"content-type": "application/json", "content-length": str(10 * LIMIT)}
    assert post_without_end(client, "/v1/moderations", said)[::2] == (401, 0)
    said["authorization"] = f"Bearer {keys.create(db, keyring, name='k')}"
    assert post_without_end(client, "/v1/moderations", said)[::2] == (413, 0)


def test_a_key_that_cannot_be_looked_up_now_is_no_fault_of_the_body(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise RetryableError("no PostgreSQL")

    monkeypatch.setattr(keys, "authenticate", away)
    status, body, _ = post_without_end(client, "/v1/moderations", {"authorization": "Bearer gf_x"})
    assert (status, body["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize("path", ROUTES[:-1])
def test_what_is_nested_without_an_end_is_no_json(client: TestClient, db: Database, keyring: Keyring, path: str) -> None:
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}", "content-type": "application/json"}
    for deep in (b"[" * 40_000, b'{"a":' * 10_000, b'{"input":' + b"[" * 20_000 + b"]" * 20_000 + b"}"):
        answer = client.post(path, content=deep, headers=headers)
        assert answer.status_code in (400, 422)
        assert code_in(answer.json()) in ("invalid_json", "invalid_parameter")


@pytest.mark.parametrize("path", ROUTES[:4])
def test_a_body_of_very_many_values_is_refused_before_all_of_it_came(
    client: TestClient, db: Database, keyring: Keyring, path: str
) -> None:
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}", "content-type": "application/json"}
    for many in (b"[],", b"1,", b'"",', b'{"a":1},'):
        answer = client.post(path, content=b"[" + many * 100_000, headers=headers)
        assert (answer.status_code, code_in(answer.json())) == (413, "too_many_values")

"""Lists over HTTP: stored, told of what is wrong by line, applied, read back, and no other tenant's."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY

CSV = {"content-type": "text/csv"}
TERMS = b"value,id,decide,categories\nbadword,bad,unsafe,Violent\noddword,odd,,\n"


@pytest.fixture
def client(database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Iterator[TestClient]:
    app = create_app(load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path))
    with TestClient(app, headers={"authorization": f"Bearer {keys.create(db, keyring, name='mine')}"}) as made:
        yield made


def stored(client: TestClient, name: str = "mine", content: bytes = TERMS, **headers: str) -> Any:
    return client.post("/v1/lists", params={"name": name}, content=content, headers=CSV | headers)


def test_a_list_is_stored_applied_read_back_and_replaced(client: TestClient) -> None:
    first = stored(client)
    assert (first.status_code, first.json()["id"], first.json()["entries"]) == (201, "mine@1", 2)
    assert stored(client).status_code == 200
    second = stored(client, content=TERMS + b"more,,,\n", **{"idempotency-key": "once"})
    assert stored(client, content=TERMS + b"more,,,\n", **{"idempotency-key": "once"}).json() == second.json()
    assert client.post("/v1/lists/mine@1/activate").json()["active"] is True
    assert client.post("/v1/lists/mine@2/activate").json()["replaced"] == "mine@1"
    page = client.get("/v1/lists", params={"limit": 1}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (["mine@2"], True)
    rest = client.get("/v1/lists", params={"after": page["last_id"]}).json()
    assert [(one["id"], one["active"]) for one in rest["data"]] == [("mine@1", False)]
    exported = client.get("/v1/lists/mine@1/entries", params={"format": "csv"})
    assert stored(client, "again", exported.content).json()["entries"] == 2
    lines = client.get("/v1/lists/mine@2/entries").text.splitlines()
    assert lines[0] == '{"value":"badword","id":"bad","decide":"unsafe","categories":["Violent"]}'
    assert client.post("/v1/lists/mine@2/deactivate").json()["active"] is False
    assert client.post("/v1/lists/mine@2/deactivate").status_code == 409
    assert client.get("/v1/lists/mine@2").json()["active"] is False


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"content": b"kind,value\npattern,(?=a)b\nterm,\n"}, 422, "line 2: RE2 takes no such pattern"),
        ({"content": b"\xff"}, 400, "must be in UTF-8"),
        ({"content": b""}, 422, "there is no column `value`"),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 415, "send the list as text/csv"),
        ({"content": b"x" * ((16 << 20) + 1)}, 413, "at most 16777216 bytes"),
        ({"content": TERMS, "params": {"name": "a b"}}, 422, "pattern"),
        ({"content": TERMS, "params": {}}, 422, "name"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(client: TestClient, sent: dict[str, Any], status: int, said: str) -> None:
    answer = client.post("/v1/lists", **{"params": {"name": "mine"}, "headers": CSV, **sent})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert client.get("/v1/lists").json()["data"] == []


def test_all_problems_are_told_and_nothing_is_stored(client: TestClient) -> None:
    answer = client.post("/v1/lists/check", content=b"kind,value\ndigest,x\nterm,a\nterm,a\n", headers=CSV)
    assert [(one["line"], one["cause"]) for one in answer.json()["problems"]] == [
        (2, "a digest is the SHA-256 of a text: 64 digits of 0-9 and a-f"), (4, "the same stands in line 3"),
    ]  # fmt: skip
    assert client.post("/v1/lists/check", content=TERMS, headers=CSV).json() == {
        "object": "list.check",
        "valid": True,
        "entries": 2,
    }
    assert client.get("/v1/lists").json()["data"] == []


def test_a_list_of_a_hundred_thousand_entries_is_taken_and_its_hits_are_told(client: TestClient) -> None:
    lines = "\n".join(f"word{n:06}x,w{n},,unsafe" for n in range(100_000))
    answer = stored(client, "large", f"value,id,categories,decide\n{lines}".encode())
    assert (answer.status_code, answer.json().get("entries")) == (201, 100_000), answer.text
    told = client.get("/v1/lists/large@1/hits", params={"since": 0}).json()
    assert (told["data"], told["n_never"], len(told["never"])) == ([], 100_000, 10_000)


def test_another_tenants_lists_do_not_exist(client: TestClient, db: Database, keyring: Keyring) -> None:
    stored(client)
    foreign = {"authorization": f"Bearer {keys.create(db, keyring, name='x', tenant='acme')}"}
    assert client.get("/v1/lists", headers=foreign).json()["data"] == []
    for method, path in (("get", ""), ("get", "/entries"), ("get", "/hits"), ("post", "/activate"), ("post", "/deactivate")):
        assert client.request(method, f"/v1/lists/mine@1{path}", headers=foreign).status_code == 404
    assert client.get("/v1/lists", params={"after": "mine@1"}, headers=foreign).status_code == 400
    reader = {"authorization": f"Bearer {keys.create(db, keyring, name='r', scopes=['policies:read'])}"}
    assert client.get("/v1/lists/mine@1/entries", headers=reader).status_code == 200
    assert client.post("/v1/lists/mine@1/activate", headers=reader).status_code == 403

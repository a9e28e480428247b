"""Uploads: the form decides how long a file is kept, wherever the field is; an invalid form leaves nothing."""

import pathlib
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.property.test_multipart import LINE, form
from tests.services.fixtures import SECRET_KEY
from tests.services.stored import scalar

FILE, PURPOSE = ("file", LINE), ("purpose", b"batch")
ANCHOR, HOUR = ("expires_after[anchor]", b"created_at"), ("expires_after[seconds]", b"3600")


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)


@pytest.fixture
def client(api_settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="test")
    headers = {"authorization": f"Bearer {key}", "content-type": "multipart/form-data; boundary=edge"}
    with TestClient(create_app(api_settings), headers=headers) as made:
        yield made


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


@pytest.mark.parametrize("size", [1 << 20, 100, 7])
def test_an_expiry_counts_wherever_it_stands(client: TestClient, size: int) -> None:
    for parts in (
        [PURPOSE, ANCHOR, HOUR, FILE],
        [FILE, PURPOSE, ANCHOR, HOUR],
        [HOUR, FILE, PURPOSE],
        [ANCHOR, FILE, HOUR, PURPOSE],
    ):
        made = client.post("/v1/files", content=pieces(form(parts), size))
        assert made.status_code == 200, made.text
        assert made.json()["expires_at"] - made.json()["created_at"] == 3600
        assert (made.json()["purpose"], made.json()["bytes"]) == ("batch", len(LINE))


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([FILE], "missing_purpose"),
        ([FILE, ("purpose", b"vision")], "invalid_purpose"),
        ([("purpose", b"vision"), FILE], "invalid_purpose"),
        ([FILE, PURPOSE, ("expires_after[seconds]", b"1")], "invalid_expiry"),
        ([FILE, PURPOSE, ANCHOR], "invalid_expiry"),
        ([FILE, PURPOSE, ("expires_after", b'{"anchor": "created_at", "seconds": 3600}')], "invalid_expiry"),
        ([FILE, PURPOSE, ("expires_after[anchor]", b"last_active_at"), HOUR], "invalid_expiry"),
        ([FILE, PURPOSE, ("expiresAfter[seconds]", b"3600")], "unknown_parameter"),
        ([("expires", b"3600"), PURPOSE, FILE], "unknown_parameter"),
        ([FILE, PURPOSE, PURPOSE], "invalid_multipart"),
        ([PURPOSE, ("file", b"")], "empty_file"),
        ([PURPOSE], "missing_file"),
    ],
)
def test_a_form_that_is_wrong_leaves_nothing(
    client: TestClient, api_settings: Settings, db: Database, parts: list[tuple[str, bytes]], code: str
) -> None:
    for size in (1 << 20, 50):
        refused = client.post("/v1/files", content=pieces(form(parts), size))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
    assert client.get("/v1/files").json()["data"] == []
    folder = api_settings.data_dir / "files"
    assert not folder.exists() or list(folder.iterdir()) == []
    assert scalar(db, "select count(*) from file where state = 1") == 0


def test_a_boundary_that_is_none_is_the_callers_fault(client: TestClient) -> None:
    for boundary, status in (("b" * 256, 400), ("b" * 257, 400), ("b" * 5000, 400), ("", 415)):
        answer = client.post("/v1/files", content=b"x", headers={"content-type": f"multipart/form-data; boundary={boundary}"})
        assert answer.status_code == status, answer.text


def test_an_idempotency_key_covers_what_the_file_is_called(client: TestClient) -> None:
    def upload(name: bytes) -> tuple[int, str]:
        body = form([FILE, PURPOSE]).replace(b'filename="a.jsonl"', b'filename="' + name + b'"')
        assert name in body
        answer = client.post("/v1/files", content=body, headers={"idempotency-key": "k"})
        return answer.status_code, answer.json().get("id") or answer.json()["error"]["code"]

    first = upload(b"a.jsonl")
    assert first[0] == 200
    assert upload(b"a.jsonl") == first
    assert upload(b"b.jsonl") == (422, "idempotency_key_reused")

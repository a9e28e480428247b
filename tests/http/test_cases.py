"""Complaints of other tools' users about files of batches: c22 and c23; the others are in `tests/unit/test_cases.py`."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.served import judge
from tests.unit.test_cases import COMPLETIONS, IMAGE, MODERATIONS, TWO, lines, request, said


@pytest.fixture
def client(database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Iterator[TestClient]:
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=8)
    bearer = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    with TestClient(create_app(settings), raise_server_exceptions=False, headers=bearer) as made:
        yield made


Batch = Callable[[bytes], dict[str, Any]]


@pytest.fixture
def batch(client: TestClient) -> Batch:
    """Uploads these lines and makes their batch, which is taken in when it returns."""

    def made(data: bytes) -> dict[str, Any]:
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", data)}).json()["id"]
        asked = {"input_file_id": file, "endpoint": MODERATIONS, "completion_window": "24h"}
        label = client.post("/v1/batches", json=asked).json()["id"]
        found: dict[str, Any] = until(
            lambda: (got := client.get(f"/v1/batches/{label}").json())["in_progress_at"] and got, what="the intake"
        )
        return found

    return made


def content(client: TestClient, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get(f"/v1/files/{file_id}/content").text.splitlines()]


def test_output_and_errors_of_a_cancelled_batch_are_all_of_its_requests(client: TestClient, db: Database, batch: Batch) -> None:
    """c22."""
    rows = [request(f"r{i}", MODERATIONS, input=f"text {i}") for i in range(60)]
    label = batch(lines(*rows, {"custom_id": "bad"}))["id"]
    judge(db, label, 1, 4, 5)
    assert client.post(f"/v1/batches/{label}/cancel").json()["status"] == "cancelled"
    ended = client.get(f"/v1/batches/{label}").json()
    output, errors = content(client, ended["output_file_id"]), content(client, ended["error_file_id"])
    counts = ended["request_counts"]
    assert (len(output), len(errors)) == (24, 37) == (counts["completed"], counts["total"] - counts["completed"])
    assert {line["custom_id"] for line in output + errors} == {"bad", *(row["custom_id"] for row in rows)}
    codes = [line["error"]["code"] if line["error"] else line["response"]["body"]["error"]["code"] for line in errors]
    assert sorted(set(codes)) == ["batch_cancelled", "wrong_type"]


def test_a_bad_line_a_purpose_or_a_url_takes_no_batch_down(client: TestClient, db: Database, batch: Batch) -> None:
    """c23, and of c09 a first line that is unusable."""
    wrong = client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("in.jsonl", TWO)})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_purpose")
    found = batch(
        lines(
            request("many", MODERATIONS, input=["a", "b"]),
            request("good", MODERATIONS, input="a"),
            request("elsewhere", COMPLETIONS, messages=[said("user", "a")]),
            request("image", MODERATIONS, input=IMAGE),
            request("good", MODERATIONS, input="b"),
        )
        + b"{no JSON\n"
    )
    judge(db, found["id"])
    ended = client.get(f"/v1/batches/{found['id']}").json()
    assert (ended["status"], ended["request_counts"]) == ("completed", {"total": 6, "completed": 1, "failed": 5})
    assert [line["custom_id"] for line in content(client, ended["output_file_id"])] == ["good"]
    refused = [(line["custom_id"], line["response"]["body"]["error"]) for line in content(client, ended["error_file_id"])]
    assert [(row_id, error["code"], error["message"].split(":")[0]) for row_id, error in refused] == [
        ("many", "wrong_type", "line 1"),
        ("elsewhere", "url_mismatch", "line 3"),
        ("image", "unsupported_content", "line 4"),
        ("good", "duplicate_id", "line 5"),
        (None, "invalid_json", "line 6"),
    ]

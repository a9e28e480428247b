"""Rows over HTTP: a line of a body means the same as a line of a file, and nothing is called safe beside unread words."""

import io
import json
import pathlib
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.client.protocol import _lines, _row_lines
from guardfleet.domain import ids
from guardfleet.domain.options import JobOptions
from guardfleet.errors import LineError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from producer.readers import Input, Reading
from producer.sources import Inputs
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.stored import scalar, took

JSONL = {"content-type": "application/jsonl"}
WORDS = [{"type": "text", "text": "words"}]
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "one", "lang": "en", "url": "https://x", "n": None, "metadata": {"k": 1}},
    {"id": "b", "text": "two", "nr": 7, "comment": "three", "metadata": '{"k": 2}'},
    {"nr": "c", "comment": "four", "deep": {"k": [1]}},
    {"id": "d", "messages": [{"role": "user", "content": WORDS}], "lang": "de", "metadata": "plain"},
    {"custom_id": "e", "url": "/v1/moderations", "method": "POST", "body": {"input": "five"}},
    {"id": "f", "text": "", "title": "six"},
    {"id": "g"},
]
BODY = b"\n".join(json.dumps(row).encode() for row in ROWS)
ASKED: list[dict[str, str]] = [
    {},
    {"metadata_columns": "none"},
    {"metadata_columns": "lang, deep"},
    {"text_column": "comment"},
    {"text_column": "comment", "id_column": "nr", "metadata_columns": "id"},
]


@pytest.fixture
def settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=10)


@pytest.fixture
def client(settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="test")
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


def of_file(path: pathlib.Path, asked: dict[str, str]) -> tuple[list[PayloadRow], list[tuple[int, str]]]:
    """What the reader of files makes of the same lines."""
    path.write_bytes(BODY)
    columns = Columns.of(asked.get("text_column"), asked.get("id_column"), asked.get("metadata_columns"))
    found = [row for _, row in Input(str(path), Reading(columns=columns), max_text_bytes=1 << 20).rows()]
    return [row for row in found if isinstance(row, PayloadRow)], [(e.line, e.code) for e in found if isinstance(e, LineError)]


def of_job(db: Database, keyring: Keyring, label: str) -> list[PayloadRow]:
    return leases.load(db, keyring, took(db, views.get(db, ids.JOB.parse(label)), 0))


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_line_is_the_same_row_whichever_way_it_comes(
    client: TestClient, settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path, asked: dict[str, str]
) -> None:
    expected, refused = of_file(tmp_path / "in.jsonl", asked)
    batch = client.post("/v1/batches", params=asked, content=BODY, headers=JSONL).json()
    assert of_job(db, keyring, batch["id"]) == expected
    assert [(error["line"], error["code"]) for error in batch["errors"]["data"]] == refused
    reading = Reading(columns=Columns.of(asked.get("text_column"), asked.get("id_column"), asked.get("metadata_columns")))
    submission = DirectClient(db, keyring, settings).submit(ROWS, JobOptions(), SubmitOptions(columns=reading.columns))
    assert of_job(db, keyring, submission.job.label) == expected
    assert [(error.line, error.code) for error in submission.rejected] == refused
    sent = client.post("/v1/batches", content=b"".join(_lines(ROWS, reading.columns)), headers=JSONL).json()
    assert of_job(db, keyring, sent["id"]) == expected
    if not asked:
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", BODY)}).json()["id"]
        made = client.post("/v1/batches", json={"input_file_id": file, "endpoint": "/v1/moderations"}).json()["id"]
        until(lambda: client.get(f"/v1/batches/{made}").json()["in_progress_at"], what="the intake")
        assert of_job(db, keyring, made) == expected


@pytest.mark.parametrize("name", ["text_column", "id_column", "metadata_columns"])
@pytest.mark.parametrize("value", ["", "x" * 1001, "a\0b"])
def test_a_column_that_cannot_be_one_is_refused(client: TestClient, name: str, value: str) -> None:
    answer = client.post("/v1/batches", params={name: value}, content=BODY, headers=JSONL)
    assert (answer.status_code in (400, 422), answer.json()["error"]["param"] in (name, None)) == (True, True)


@pytest.mark.parametrize(
    ("path", "body", "code", "said"),
    [
        ("moderate", {"messages": [{"role": "user", "content": "", "note": "words"}]}, "unknown_member", "'note'"),
        ("moderate", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "unsupported_content",
         "images cannot be judged"),
        ("moderate", {"messages": [{"role": "captain", "content": "words"}]}, "unknown_role", "'captain'"),
        ("moderate", {"messages": [{"role": "user", "content": "x"}], "text": "y"}, "missing_text", "has both"),
        ("moderations", {"input": [{"type": "text", "text": "", "content": "words"}]}, "unknown_member", "'content'"),
        ("moderations", {"input": "", "prompt": "words"}, "unknown_member", "'prompt'"),
        ("moderations", {"input": ["", " "], "prompt": "words"}, "unknown_member", "'prompt'"),
    ],
)  # fmt: skip
def test_words_that_would_not_be_judged_are_refused_by_name(
    client: TestClient, db: Database, path: str, body: Any, code: str, said: str
) -> None:
    answer = client.post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert said in answer.json()["detail"]
    assert scalar(db, "select count(*) from job") == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("moderations", b'{"input": "a", "input": "b"}'),
        ("moderations", b'{"input": [{"type": "text", "text": "a", "te\\u0078t": "b"}]}'),
        ("moderate", b'{"text": "a: b", "text": "c"}'),
        ("moderate", b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}'),
    ],
)
def test_a_member_that_stands_twice_is_refused_by_name(client: TestClient, path: str, body: bytes) -> None:
    """Whoever looks at a request before this API may have seen the other one."""
    answer = client.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "repeated_key")


def test_a_bomb_is_refused_by_name_in_little_memory(client: TestClient) -> None:
    machine, packed = zlib.compressobj(9, zlib.DEFLATED, 31), io.BytesIO()
    for _ in range(300):  # 300 MiB in 300 kB, within what a body may have
        packed.write(machine.compress(b" " * (1 << 20)))
    packed.write(machine.flush())
    tracemalloc.start()
    answer = client.post("/v1/batches", content=packed.getvalue(), headers={**JSONL, "content-encoding": "gzip"})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "may decompress to at most 1,000 times its size" in answer.json()["detail"]
    assert most < 32 << 20


def test_refused_lines_of_a_range_are_listed_over_http(client: TestClient, tmp_path: pathlib.Path) -> None:
    """A CSV goes over HTTP as its rows and its refusals, each with all the lines that it covers."""
    (tmp_path / "in.csv").write_text('id,text\n1,a\n2,"never closed\n3,b\n4,c\n')
    body = b"".join(_row_lines(Inputs(str(tmp_path / "in.csv"), max_text_bytes=1 << 20).rows()))
    batch = client.post("/v1/batches", content=body, headers=JSONL).json()
    assert batch["request_counts"] == {"total": 4, "completed": 0, "failed": 3}
    (refused,) = client.get(f"/v1/batches/{batch['id']}/rejections").json()["data"]
    assert (refused["line"], refused["last_line"], refused["code"]) == (3, 5, "invalid_csv")


@pytest.mark.parametrize("body", [b"", b"\n \n", b"\n" * 300_000])
def test_an_empty_body_makes_a_batch_only_where_that_is_allowed(client: TestClient, db: Database, body: bytes) -> None:
    answer = client.post("/v1/batches", content=body, headers=JSONL)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "empty_body")
    assert "allow_empty=true" in answer.json()["detail"]
    assert scalar(db, "select count(*) from job") == 0
    made = client.post("/v1/batches?allow_empty=true", content=body, headers=JSONL)
    assert (made.json()["status"], made.json()["request_counts"]["total"]) == ("completed", 0)

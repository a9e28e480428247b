"""Erasing over HTTP: through every face that takes a text in; and what the faces say of it afterwards."""

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.domain import ids
from guardfleet.domain.verdict import Judgement, failure
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, models
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.judged import UNSAFE, answered
from tests.services.poison import change
from tests.services.remains import in_files, where
from tests.services.served import judging
from tests.services.stored import MODEL, scalar

ID, TEXT, SUBJECT, OTHER = "canary-id-91aa", "canary-text-91aa", "canary-subject-91aa", "neighbour-91aa"
MINE = (ID, TEXT, SUBJECT)
QUOTING = answered(f"an answer that quotes {TEXT}")
COUNTS = {"texts": 1, "refusals": 0, "held": 0, "batches": 1, "files": 0, "unread": 0}
JSONL = {"content-type": "application/jsonl"}
EVERYTHING = {"ids": [ID], "subjects": [{"key": "user", "value": SUBJECT}]}


def line(row_id: str, text: str, subject: str) -> bytes:
    return json.dumps({"id": row_id, "text": text, "metadata": {"user": subject}}).encode() + b"\n"


LINES = line(OTHER, OTHER, OTHER) + line(ID, TEXT, SUBJECT) + line(OTHER + "2", OTHER, OTHER)


@pytest.fixture
def settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=2)


@pytest.fixture
def client(settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="test", scopes=["all", "erasures:write", "holds:write"])
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


def judge(db: Database, batch: str, judgement: Judgement = UNSAFE) -> None:
    """Judge a batch as a worker would, digests and metadata included."""
    job, keyring, no = views.get(db, ids.JOB.parse(batch)), Keyring(SECRET_KEY), 0
    while held := leases.claim(db, job.id, no, worker="w", lease_s=60):
        rows = [
            Row(
                row.id,
                UNSAFE if judgement is QUOTING and row.content != TEXT else judgement,
                keyring.digest(1, row.content),
                row.metadata,
            )
            for row in leases.load(db, keyring, held)
        ]
        completion.finish(db, held, rows, model_id=models.register(db, MODEL))
        no += 1


def uploaded(client: TestClient, db: Database) -> str:
    """A batch of an uploaded file, taken in and judged."""
    form = {"data": {"purpose": "batch"}, "files": {"file": ("people.jsonl", LINES)}, "headers": {"idempotency-key": "upload"}}
    file_id = client.post("/v1/files", **form).json()["id"]
    asked = {"input_file_id": file_id, "endpoint": "/v1/moderations", "completion_window": "24h"}
    batch: str = client.post("/v1/batches", json=asked).json()["id"]
    until(lambda: views.get(db, ids.JOB.parse(batch)).sealed_at is not None, what="its intake")
    judge(db, batch, judgement=QUOTING)
    return batch


def inline(client: TestClient, db: Database, key: str = "inline") -> str:
    batch: str = client.post("/v1/batches", content=LINES, headers=JSONL | {"idempotency-key": key}).json()["id"]
    judge(db, batch, judgement=failure("engine_failed", "x"))
    return batch


def test_nothing_is_left_of_what_came_in_through_any_face(
    client: TestClient, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    of_file, failed = uploaded(client, db), inline(client, db)
    again = client.post(f"/v1/batches/{failed}/retry").json()["id"]
    judge(db, again, judgement=QUOTING)
    with judging(db, keyring, judgement=QUOTING):
        answers = [client.post("/v1/moderations", json={"input": [OTHER, TEXT]}), client.post("/v1/moderate", json={"text": TEXT})]
    waited_for = [f"modr-{public_id.hex}" for public_id in all_of(db, "select public_id from job where online")]
    assert len(waited_for) == len(answers) == 2
    waiting = client.post("/v1/batches", content=LINES, headers=JSONL).json()["id"]
    whole_file = hashlib.sha256(LINES).hexdigest()
    before = where(db, keyring, [*MINE, whole_file])
    assert {"verdict", "shard_payload"} <= before[TEXT]
    assert before[whole_file] >= {"file", "repeat"}  # without a key: of a file of one line, that could be guessed
    stored = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert len(stored) == 1

    answer = client.post("/v1/erasures", json=EVERYTHING)
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert receipt["complete"]
    assert (receipt["counts"]["texts"], receipt["counts"]["files"], receipt["counts"]["held"]) == (4, 1, 0)
    assert receipt["counts"]["requests"] >= 2
    after = where(db, keyring, [*MINE, whole_file])
    assert after[ID] == after[SUBJECT] == after[whole_file] == set()
    assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert not any(in_files(tmp_path, [word.encode() for word in MINE]).values())
    for batch in (of_file, failed, again):
        rows = [row for row in client.get(f"/v1/batches/{batch}/results").json()["data"] if row["id"] is None]
        assert len(rows) == 1, batch
        assert TEXT not in json.dumps(rows)
    assert where(db, keyring, [OTHER])[OTHER] >= {"verdict", "shard_payload"}
    assert client.get(f"/v1/files/{client.get(f'/v1/batches/{of_file}').json()['input_file_id']}").status_code == 404
    assert client.get(f"/v1/batches/{waiting}").json()["status"] == "in_progress"
    assert client.get(f"/v1/erasures/{receipt['id']}").json() == receipt
    assert client.get("/v1/erasures").json()["data"] == [receipt]
    assert not [word for word in MINE if word in answer.text]
    for request in waited_for:  # such texts have no id of the caller's: the answer's id names them
        assert client.delete(f"/v1/batches/{request}").json()["counts"]["jobs"] == 1
    assert not any(where(db, keyring, MINE).values())


def all_of(db: Database, sql: str) -> list[Any]:
    with db.session() as connection:
        return connection.scalars(sql)


def test_a_repeated_request_after_the_erasure_does_not_find_the_old_batch(client: TestClient, db: Database) -> None:
    first = inline(client, db)
    assert client.post("/v1/batches", content=LINES, headers=JSONL | {"idempotency-key": "inline"}).json()["id"] == first
    client.post("/v1/erasures", json=EVERYTHING)
    assert client.post("/v1/batches", content=LINES, headers=JSONL | {"idempotency-key": "inline"}).json()["id"] != first


def test_result_files_have_another_tag_and_length_and_no_id(client: TestClient, db: Database) -> None:
    batch = client.post("/v1/batches", content=LINES, headers=JSONL).json()["id"]
    judge(db, batch)
    output = client.get(f"/v1/batches/{batch}").json()["output_file_id"]
    before = client.get(f"/v1/files/{output}/content")
    client.post("/v1/erasures", json=EVERYTHING)
    after = client.get(f"/v1/files/{output}/content", headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.content != before.content
    assert ID not in after.text
    assert client.get(f"/v1/files/{output}").json()["bytes"] == len(after.content)
    assert [json.loads(row)["custom_id"] for row in after.text.splitlines()] == [OTHER, None, OTHER + "2"]


def test_the_thin_routes_do_the_same_and_no_log_of_ours_has_the_url(
    client: TestClient, db: Database, keyring: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    for n, asked in enumerate(({"id": ID}, {"subject_key": "user", "subject_value": SUBJECT})):
        inline(client, db, f"{n}")
        assert client.delete("/v1/verdicts", params=asked).json()["counts"]["texts"] == 1, asked
    batch, _ = inline(client, db, "in it"), inline(client, db, "beside it")
    for asked in ({"id": ID, "batch": batch}, {"id": ID}):
        assert client.delete("/v1/verdicts", params=asked).json()["counts"]["texts"] == 1, asked
    assert not any(where(db, keyring, MINE).values())
    batch = inline(client, db, "last")
    assert client.delete(f"/v1/batches/{batch}").json()["counts"]["jobs"] == 1
    logged = "".join(capfd.readouterr())
    assert "/v1/verdicts" in logged
    assert not [word for word in MINE if word in logged]
    for path in (f"/v1/batches/{batch}", f"/v1/batches/{batch}/results"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/v1/batches/{batch}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("post", "/v1/erasures", {"json": {}}, 400),
        ("post", "/v1/erasures", {"json": {"ids": ["line:1"]}}, 400),
        ("post", "/v1/erasures", {"json": {"ids": [""]}}, 422),
        ("post", "/v1/erasures", {"json": {"ids": ["a\0"]}}, 400),
        ("post", "/v1/erasures", {"json": {"ids": [], "batch": "BATCH"}}, 400),
        ("post", "/v1/erasures", {"json": {"ids": ["a"], "subjects": []}}, 400),
        ("post", "/v1/holds", {"json": {"subjects": [], "batch": "BATCH", "reason": "r"}}, 400),
        ("post", "/v1/erasures", {"json": {"ids": ["x"] * 1001}}, 422),
        ("post", "/v1/erasures", {"json": {"subjects": [{"key": "a"}]}}, 422),
        ("post", "/v1/erasures", {"json": {"subjects": [{"key": "a", "value": None}]}}, 422),
        ("post", "/v1/erasures", {"json": {"ids": ["a"], "everything": True}}, 422),
        ("delete", "/v1/verdicts", {}, 400),
        ("delete", "/v1/verdicts", {"params": {"subject_key": "a"}}, 400),
        ("delete", "/v1/verdicts", {"params": {"batch": "batch_" + "0" * 32}}, 400),
        ("post", "/v1/holds", {"json": {"ids": ["x"], "reason": "as Mr Doe asked"}}, 422),
        ("post", "/v1/holds", {"json": {"reason": "r"}}, 400),
        ("get", "/v1/erasures/erasure_x", {}, 404),
        ("delete", "/v1/holds/hold_x", {}, 404),
    ],
)
def test_what_cannot_be_meant_is_refused(
    client: TestClient, db: Database, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    batch = inline(client, db)
    sent = json.loads(json.dumps(sent).replace('"BATCH"', f'"{batch}"'))
    answer = client.request(method, path, **sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert scalar(db, "select count(*) from erasure") == scalar(db, "select count(*) from legal_hold") == 0


def test_a_batch_that_came_after_a_hold_and_its_file_stay_if_a_text_is_held(client: TestClient, db: Database) -> None:
    assert client.post("/v1/holds", json={"ids": [ID], "reason": "r"}).status_code == 200
    batch = f"/v1/batches/{uploaded(client, db)}"
    file = f"/v1/files/{client.get(batch).json()['input_file_id']}"
    assert client.delete(file).status_code == 400
    assert client.delete(batch).json()["counts"] | {"jobs": 0, "held": 3} == client.delete(batch).json()["counts"]
    assert client.get(batch).json()["request_counts"]["total"] == 3
    assert client.get(f"{file}/content").content == LINES


def test_a_dry_run_counts_and_removes_nothing(client: TestClient, db: Database, keyring: Keyring) -> None:
    inline(client, db)
    answer = client.post("/v1/erasures", json=EVERYTHING | {"dry_run": True})
    assert answer.json() == {"object": "erasure.dry_run", "counts": COUNTS}
    assert all(where(db, keyring, MINE).values())
    assert scalar(db, "select count(*) from erasure") == 0


def test_a_batch_that_is_being_filled_is_told_as_not_complete(client: TestClient, db: Database) -> None:
    batch = ids.JOB.parse(inline(client, db))
    change(db, f"update job set state = 0 where public_id = '{batch}'")
    answer = client.post("/v1/erasures", json=EVERYTHING)
    assert (answer.status_code, answer.json()["complete"], answer.json()["waiting_for_jobs"]) == (202, False, 1)
    change(db, f"update job set state = 2 where public_id = '{batch}'")
    again = client.post("/v1/erasures", json=EVERYTHING)
    assert (again.status_code, again.json()["id"], again.json()["complete"]) == (200, answer.json()["id"], True)


def test_a_hold_by_http_holds_and_is_listed_without_what_it_covers(client: TestClient, db: Database) -> None:
    inline(client, db)
    made = client.post("/v1/holds", json=EVERYTHING | {"reason": "case-17"})
    assert [(one["kind"], one["jobs"], one["reason"]) for one in made.json()["data"]] == [
        ("id", 1, "case-17"),
        ("subject", 1, "case-17"),
    ]
    assert not [word for word in MINE if word in made.text + client.get("/v1/holds").text]
    receipt = client.post("/v1/erasures", json=EVERYTHING).json()
    assert (receipt["complete"], receipt["counts"]["texts"], receipt["counts"]["held"]) == (True, 0, 1)
    for one in made.json()["data"]:
        assert client.delete(f"/v1/holds/{one['id']}").json()["released_at"]
    assert client.post("/v1/erasures", json=EVERYTHING).json()["counts"]["texts"] == 1


def test_a_key_with_all_may_neither_erase_nor_hold(client: TestClient, db: Database, keyring: Keyring) -> None:
    plain = {"authorization": f"Bearer {keys.create(db, keyring, name='plain')}"}
    for method, path in (("post", "/v1/erasures"), ("delete", "/v1/verdicts?id=x"), ("post", "/v1/holds"), ("get", "/v1/erasures")):
        answer = client.request(method, path, headers=plain, json={"ids": ["x"]} if method == "post" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")

"""Batches that ask detectors and not the guard, over HTTP: nothing of them looks like a verdict."""

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.client.protocol import job_of
from guardfleet.domain import ids
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys, models
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Waits
from tests.services.detected import CLEAR, FINDER, FOUND, detected
from tests.services.fixtures import SECRET_KEY
from worker.moderation.outcome import Loaded, stored_rows

LINES = "\n".join(
    json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/moderations", "body": {"input": f"text {i}"}}) for i in range(2)
)


@pytest.fixture
def client(database_url: str, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, shard_texts=4)
    key = keys.create(db, keyring, name="test")
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


@pytest.fixture
def batch(client: TestClient, db: Database, keyring: Keyring) -> str:
    """A batch of two texts that only the finder was asked about, and has judged."""
    models.register(db, FINDER)
    made = client.post("/v1/batches?detectors=finder", content=LINES, headers={"content-type": "application/jsonl"}).json()
    job = views.get(db, ids.JOB.parse(made["id"]))
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
    assert held is not None
    texts = leases.load(db, keyring, held)
    rows = stored_rows(db, Loaded(held, texts, [b"0" * 16] * 2, None), Provisional(None, [], is_settled=True))
    assert completion.finish(db, held, rows, model_id=None, detected=[detected(db, [CLEAR, FOUND], place=0)])
    return str(made["id"])


def test_openais_counts_and_files_say_that_no_line_has_an_answer(client: TestClient, batch: str) -> None:
    answer = client.get(f"/v1/batches/{batch}")
    found = answer.json()
    assert found["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert (found["output_file_id"], found["severities"]["unrated"]) == (None, 2)
    lines = [json.loads(line) for line in client.get(f"/v1/files/{found['error_file_id']}/content").text.splitlines()]
    assert [(line["custom_id"], line["response"], line["error"]["code"]) for line in lines] == [
        ("r0", None, "unrated"), ("r1", None, "unrated"),
    ]  # fmt: skip
    job = job_of(answer.content)
    assert (job.done, job.failed) == (2, 0), "the client asked for detections, and has them"


def test_texts_that_the_guard_was_not_asked_about_are_found_by_their_severity(client: TestClient, batch: str) -> None:
    for query, n in (("severity=unrated", 2), ("severity=safe&severity=error", 0), ("severity=unrated&severity=safe", 2)):
        assert len(client.get(f"/v1/batches/{batch}/results?{query}").json()["data"]) == n, query
    assert client.get(f"/v1/batches/{batch}/download?min_severity=unrated").status_code == 422


def test_results_are_found_by_a_detectors_label(client: TestClient, batch: str) -> None:
    for query, found in (("label=found", ["r1"]), ("label=clear&label=found", ["r0", "r1"]), ("label=error&severity=unrated", [])):
        page = client.get(f"/v1/batches/{batch}/results?detector=finder&{query}").json()
        assert [row["id"] for row in page["data"]] == found, query
        lines = client.get(f"/v1/batches/{batch}/download?detector=finder&{query.partition('&severity')[0]}").text.splitlines()
        assert [json.loads(line)["id"] for line in lines] == found, query
    for query, param in (("label=found", "detector"), ("detector=finder", "label"), ("detector=finder&label=x", "label"),
                         ("detector=other&label=found", "detector")):  # fmt: skip
        for face in ("results", "download"):
            refused = client.get(f"/v1/batches/{batch}/{face}?{query}")
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), (face, query)


def test_a_moderation_that_asks_detectors_is_told_where_to(client: TestClient) -> None:
    refused = client.post("/v1/moderations", json={"input": "x", "detectors": ["finder"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_member")
    assert "POST /v1/detect asks detectors" in refused.json()["error"]["message"]


def test_a_policy_that_reads_a_detector_that_nobody_serves_says_so(client: TestClient, db: Database) -> None:
    models.register(db, FINDER)
    rules = [{"id": f"r{name}", "when": {"detectors": {name: {"label": "bad"}}}, "action": "block"} for name in ("finder", "other")]
    made = client.post("/v1/policies", json={"name": "mine", "default": "allow", "rules": rules})
    assert (made.status_code, made.json()["unknown_detectors"]) == (201, ["other"])
    assert client.post(f"/v1/policies/{made.json()['id']}/activate").json()["unknown_detectors"] == ["other"]

"""No request gets a 5xx, whatever it holds: a sample of all spoilt ones. `benchmarks/fuzz_api.py` sends the rest."""

import pathlib
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.hostile import requests_of, wrong_with

KNOWN = {
    "batch_id": "batch_" + "0" * 32,
    "file_id": "file-" + "0" * 32,
    "endpoint_id": "we_" + "0" * 32,
    "delivery_id": "1",
    "model": "m",
    "name": "x",
    "version": "1",
    "preset": "strict",
    "sample_id": "sample_" + "0" * 32,
    "erasure_id": "erasure_" + "0" * 32,
    "hold_id": "hold_" + "0" * 32,
}
EVERY = 17


@pytest.fixture
def client(database_url: str, tmp_path: pathlib.Path, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    settings = load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, moderation_timeout_s=0.001, log_level="error"
    )
    key = keys.create(db, keyring, name="hostile", scopes=keys.SCOPES)
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


def test_no_request_is_answered_with_a_failure_of_the_server(client: TestClient) -> None:
    sent = list(requests_of(client.get("/openapi.json").json(), KNOWN))[::EVERY]
    assert len(sent) > 300
    assert [wrong for request in sent if (wrong := wrong_with(client, request))] == []


def test_the_server_does_not_fail_again_at_what_it_once_failed_at(client: TestClient) -> None:
    once = {
        ("/v1/files?purpose=%00", "purpose=%00"),
        ("/v1alpha1/comments:analyze", ".requestedAttributes.key half a pair"),
        ("/v1/batches", "line .metadata.a 986 deep"),
        ("/v1/batches", "line .text 5,000 digits"),
        ("/v1alpha1/comments:suggestscore", ".attributeScores.k.spanScores 900 deep"),
    }
    sent = [one for one in requests_of(client.get("/openapi.json").json(), KNOWN) if (one.url, one.what) in once]
    assert {(request.url, request.what) for request in sent} == once
    assert [wrong for request in sent if (wrong := wrong_with(client, request))] == []

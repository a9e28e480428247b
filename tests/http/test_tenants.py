"""Every route, called with the key of another tenant, with a key that lacks the scope, and without a key."""

import re
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from api.google.errors import PLACES
from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judge

OPEN = {"/livez", "/readyz", "/healthz", "/openapi.json"}
SCOPES = ["all", "erasures:write", "holds:write"]
JSONL = {"content-type": "application/jsonl"}


def routes_of(app: Any) -> list[tuple[str, str]]:
    return [(method, path) for path, methods in app.openapi()["paths"].items() if path not in OPEN for method in methods]


@pytest.fixture
def owned(database_url: str, db: Database, keyring: Keyring, tmp_path: Any) -> Any:
    """The application, and one of everything that a tenant can own."""
    app = create_app(load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path))
    mine = {"authorization": f"Bearer {keys.create(db, keyring, name='mine', scopes=SCOPES)}"}
    with TestClient(app, raise_server_exceptions=False) as client:
        batch = client.post("/v1/batches", content=b'{"id": "1", "text": "x"}', headers=mine | JSONL).json()["id"]
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", b'{"id":"1","text":"x"}')}, headers=mine)
        names = {"batch_id": batch, "file_id": file.json()["id"], "model": "nobody"}
        names |= made_of_webhooks(client, mine) | {"sample_id": made_sample(client, db, batch, mine)}
        policy = {"name": "x", "description": "what is mine", "default": "flag"}
        client.post("/v1/policies", json=policy, headers=mine)
        names |= {"name": "x", "version": "1", "preset": "none", "description": policy["description"]}
        names["hold_id"] = client.post("/v1/holds", json={"ids": ["x"], "reason": "r"}, headers=mine).json()["data"][0]["id"]
        names["erasure_id"] = client.post("/v1/erasures", json={"ids": ["x"]}, headers=mine).json()["id"]
        yield app, client, names


def made_sample(client: TestClient, db: Database, batch: str, headers: dict[str, str]) -> str:
    judge(db, batch)
    made: str = client.post(f"/v1/batches/{batch}/samples", json={"n": 1}, headers=headers).json()["id"]
    label = {"batch_id": batch, "seq": 0, "label": "safe", "author": "mine"}
    assert client.post("/v1/labels", json={"labels": [label]}, headers=headers).json()["new"] == 1
    return made


def made_of_webhooks(client: TestClient, headers: dict[str, str]) -> dict[str, str]:
    asked = {"name": "mine", "url": "https://example.com/x", "event_types": ["batch.completed"]}
    made = client.post("/v1/webhook_endpoints", json=asked, headers=headers)
    return {"endpoint_id": made.json()["id"], "delivery_id": "1"}


def test_no_route_tells_another_tenant_anything(owned: Any, db: Database, keyring: Keyring) -> None:
    app, client, names = owned
    foreign = {"authorization": f"Bearer {keys.create(db, keyring, name='other', tenant='other', scopes=SCOPES)}"}
    for method, path in routes_of(app):
        url = re.sub(r"{(\w+)}", lambda found: names[found[1]], path)
        if url == path:
            if method == "get":
                assert not any(name in client.get(path, headers=foreign).text for name in names.values() if len(name) > 9), path
            continue
        answer = client.request(method, url, headers=foreign, json={} if method in ("post", "patch") else None)
        assert answer.status_code in (404, 422), (method, path, answer.text)
        assert not any(name in answer.text for name in names.values() if len(name) > 9), path


def test_no_route_answers_without_a_key_or_with_one_that_may_nothing(owned: Any, db: Database, keyring: Keyring) -> None:
    app, client, names = owned
    key = keys.create(db, keyring, name="little", scopes=["moderate"])
    little = {"authorization": f"Bearer {key}"}
    checked = 0
    for method, path in routes_of(app):
        url = re.sub(r"{(\w+)}", lambda found: names[found[1]], path)
        for bad in ({}, {"authorization": "Bearer gf_wrong"}, {"authorization": "Basic abc"}):
            answer = client.request(method, url, headers=bad)
            refused = (400 if bad else 403) if path.startswith(PLACES) else 401  # Google's clients look for these
            assert (answer.status_code, answer.headers["www-authenticate"]) == (refused, "Bearer"), (method, path)
        if "/moder" not in path and "/detect" not in path and "/comments:" not in path and not path.startswith("/v1/models"):
            checked += 1
            assert client.request(method, url, headers=little).status_code == 403, (method, path)
    assert checked > 10


def test_each_route_of_the_application_is_in_its_openapi(owned: Any) -> None:
    app, _, _ = owned
    described = set(routes_of(app))
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path not in OPEN:
            assert all((method.lower(), route.path) in described for method in route.methods), route.path

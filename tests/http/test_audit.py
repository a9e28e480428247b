"""Over HTTP: each route that changes or exports something leaves its row; the trail is read by a scope of its own, per tenant."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.http.idempotency import SECRET_HEADER
from api.server import create_app
from guardfleet.domain.actions import ACTIONS
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, installation, keys
from guardfleet.store.audit import Actor
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.poison import change
from tests.services.served import judge
from tests.services.stored import scalar, submit

CANARY = "c4n4ry"
SECRET = "whsec_" + "c4n4ry00" * 4
URL = f"http://127.0.0.1:9/{CANARY}?token={CANARY}"
LINE = json.dumps({"id": CANARY, "text": CANARY, "metadata": {CANARY: CANARY}}).encode()
FORM = {"data": {"purpose": "batch"}, "files": {"file": (f"{CANARY}.jsonl", LINE)}}
BATCH = {
    "content": LINE,
    "params": {"name": CANARY, "metadata": json.dumps({"a": CANARY}), "callback_url": URL},
    "headers": {"content-type": "application/jsonl", SECRET_HEADER: SECRET, "idempotency-key": CANARY},
}
OF_FILE = {
    "json": {"input_file_id": "{file_id}", "endpoint": "/v1/moderations", "completion_window": "24h", "metadata": {"a": CANARY}}
}
ENDPOINT = {"json": {"name": CANARY, "url": URL, "event_types": ["batch.completed"]}}
POLICY = {"name": "x", "default": "flag", "description": CANARY}
LABELS = {"json": {"labels": [{"batch_id": "{batch_id}", "seq": 0, "label": "safe", "author": CANARY}]}}
HOLD = {"json": {"subjects": [{"key": CANARY, "value": CANARY}], "reason": "case-17"}}
ERASURE = {"json": {"ids": [CANARY], "subjects": [{"key": CANARY, "value": CANARY}]}}
ERASED = "erasure.begin erasure.finish"
EVENT = {"json": {"event_type": "batch.completed"}}
LIST = {"params": {"name": "x"}, "content": b"c4n4ry", "headers": {"content-type": "text/plain"}}
# In the order in which they are made: method, route, what is sent, what must be recorded.
ACTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("post", "/v1/files", FORM, "file.create"),
    ("get", "/v1/files/{file_id}/content", {}, "file.download"),
    ("post", "/v1/batches", OF_FILE, "job.create"),
    ("post", "/v1/batches", BATCH, "job.create"),
    ("post", "/v1/batches/{batch_id}/pause", {}, "job.pause"),
    ("post", "/v1/batches/{batch_id}/resume", {}, "job.resume"),
    ("get", "/v1/batches/{batch_id}/download", {}, "job.export"),
    ("post", "/v1/batches/{batch_id}/cancel", {}, "job.cancel"),
    ("get", "/v1/files/{output_id}/content", {}, "job.export"),
    ("post", "/v1/labels", LABELS, "label.import"),
    ("post", "/v1/batches/{batch_id}/samples", {"json": {"n": 1, "by": ["slice"], "slice": CANARY}}, "sample.create"),
    ("delete", "/v1/files/{file_id}", {}, "file.delete"),
    ("post", "/v1/webhook_endpoints", ENDPOINT, "endpoint.create"),
    ("post", "/v1/webhook_endpoints/{endpoint_id}", {"json": {"url": URL + "2", "enabled": True}}, "endpoint.update"),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret", {"json": {}}, "endpoint.rotate"),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/test", EVENT, "endpoint.test"),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/retry", {}, "endpoint.resend"),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/recover", {"json": {"since": 0}}, "endpoint.resend"),
    ("delete", "/v1/webhook_endpoints/{endpoint_id}", {}, "endpoint.delete"),
    ("post", "/v1/policies", {"json": POLICY}, "policy.create"),
    ("post", "/v1/policies/{name}@{version}/activate", {}, "policy.activate"),
    ("post", "/v1/redecisions", {"json": {"since": 0}}, "policy.redecide"),
    ("post", "/v1/policies/{name}@{version}/deactivate", {}, "policy.deactivate"),
    ("post", "/v1/prompt-policies", {"json": {"name": "x", "text": CANARY}}, "prompt_policy.create"),
    ("post", "/v1/lists", LIST, "list.create"),
    ("post", "/v1/lists/{name}@{version}/activate", {}, "list.activate"),
    ("get", "/v1/lists/{name}@{version}/entries", {}, "list.export"),
    ("post", "/v1/lists/{name}@{version}/deactivate", {}, "list.deactivate"),
    ("post", "/v1/holds", HOLD, "hold.create"),
    ("delete", "/v1/holds/{hold_id}", {}, "hold.release"),
    ("post", "/v1/erasures", ERASURE, ERASED),
    ("delete", "/v1/verdicts", {"params": {"id": CANARY}}, ERASED),
    ("delete", "/v1/batches/{batch_id}", {}, "erasure.begin job.erase erasure.finish"),
]
DELIVERED_AT_ONCE = """
create function at_once() returns trigger language plpgsql as $$ begin
  insert into attempt (delivery_id, attempt_no, status, latency_ms) values (new.id, 1, 200, 1); return new; end $$;
create trigger at_once after insert on delivery for each row execute function at_once()"""
# They judge a text, keep nothing, and are as frequent as texts: docs/audit.md.
UNRECORDED = {("post", "/v1/moderations"), ("post", "/v1/moderate"), ("post", "/v1/detect"), ("post", "/v1alpha1/comments:analyze")}
UNRECORDED |= {("post", "/v1/policies/check"), ("post", "/v1/policies/test"), ("post", "/v1/lists/check")}  # they write nothing
ELSEWHERE = {("post", "/v1/batches/{batch_id}/retry")}  # needs a job with failed texts: tests/store/test_retry.py
UNRECORDED |= {("post", "/v1/policies/check"), ("post", "/v1/policies/test")}  # they write nothing
ELSEWHERE = {
    ("post", "/v1/batches/{batch_id}/retry"),  # needs a job with failed texts: tests/store/test_retry.py
    ("post", "/v1alpha1/comments:suggestscore"),  # needs a text whose digest is known: tests/http/test_labels.py
}
CHANGING = ("post", "put", "patch", "delete")
EXPORTING = ("/download", "/content", "/entries")


@pytest.fixture
def app(database_url: str, tmp_path: pathlib.Path) -> Any:
    settings = load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, webhook_allow_networks=("127.0.0.0/8",)
    )
    return create_app(settings)


@pytest.fixture
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


def header(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def reader(db: Database, keyring: Keyring, **of: Any) -> dict[str, str]:
    return header(keys.create(db, keyring, name="auditor", scopes=["audit:read"], **of))


def test_each_route_that_changes_or_exports_something_is_in_the_list(app: Any) -> None:
    paths = {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    asked = {(method, path) for method, path in paths if method in CHANGING or path.endswith(EXPORTING)}
    assert {(method, path.replace("{output_id}", "{file_id}")) for method, path, *_ in ACTS} | UNRECORDED | ELSEWHERE == asked


def test_each_leaves_a_row_that_names_key_and_request_and_nothing_that_was_sent(
    client: TestClient, db: Database, keyring: Keyring
) -> None:
    api_key = keys.create(db, keyring, name=CANARY, scopes=["all", "erasures:write", "holds:write"])
    installation.require_key(db, keyring)
    label = keys.every(db)[-1].label
    secrets, names = [CANARY, api_key, SECRET], {"delivery_id": "1", "name": "x", "version": "1"}
    at_once = (
        "create function at_once() returns trigger language plpgsql as $$ begin insert into attempt (delivery_id, attempt_no, "
    )
    change(db, at_once + "status, latency_ms) values (new.id, 1, 200, 1); return new; end $$")  # no worker delivers the test
    change(db, "create trigger at_once after insert on delivery for each row execute function at_once()")
    for method, path, sent, action in ACTS:
        if path.endswith("/cancel"):
            judge(db, names["batch_id"])
            change(db, "update job set state = 1, finished_at = null where state = 2")  # so that there is something to cancel
        if path.endswith(("/retry", "/recover")):
            change(db, "update delivery set state = 3")
        asked = json.loads(named(json.dumps(sent["json"]), names)) if "json" in sent else None
        headers = header(api_key) | sent.get("headers", {})
        answer = client.request(
            method, named(path, names), **{**sent, "headers": headers, **({"json": asked} if asked is not None else {})}
        )
        assert answer.is_success, (path, answer.text)
        rows = [(row.action, row.actor_kind, row.actor) for row in made_by(db, answer.headers["x-request-id"])]
        assert rows == [(one, "key", label) for one in action.split()], path
        if path == "/v1/holds":
            names["hold_id"] = answer.json()["data"][0]["id"]
        if path in ("/v1/files", "/v1/batches", "/v1/webhook_endpoints"):
            names[{"file": "file_id", "batch": "batch_id"}.get(answer.json()["object"], "endpoint_id")] = answer.json()["id"]
        if path.endswith("/cancel"):
            names["output_id"] = answer.json()["output_file_id"]
        secrets += re.findall(r'whsec_[^"]+', answer.text)
    trail = scalar(db, "select string_agg(a::text, ' ') from audit_event a")
    assert len(secrets) >= 6
    assert [secret for secret in secrets if secret in trail] == []


def named(template: str, names: dict[str, str]) -> str:
    """The template with ids in it."""
    return re.sub(r"{(\w+)}", lambda found: names[found[1]], template)


def made_by(db: Database, request_id: str) -> list[audit.Event]:
    return [event for event in audit.events(db, audit.Wanted()) if event.request_id == request_id]


def test_what_changes_nothing_and_what_sends_no_body_leaves_no_row(client: TestClient, db: Database, keyring: Keyring) -> None:
    key = header(keys.create(db, keyring, name="k"))
    once = key | {"idempotency-key": "once"}
    made = client.post("/v1/files", headers=once, **FORM).json()["id"]
    before = len(list(audit.events(db, audit.Wanted())))
    again = client.post("/v1/files", headers=once, **FORM)
    assert again.json()["id"] == made  # the same request: nothing new was made
    etag = client.head(f"/v1/files/{made}/content", headers=key).headers["etag"]
    assert client.get(f"/v1/files/{made}/content", headers=key | {"if-none-match": etag}).status_code == 304
    assert client.get(f"/v1/files/{made}/content", headers=key | {"range": "bytes=999-"}).status_code == 416
    assert client.get("/v1/files/file-unknown/content", headers=key).status_code == 404
    assert len(list(audit.events(db, audit.Wanted()))) == before
    assert client.get(f"/v1/files/{made}/content", headers=key | {"range": "bytes=0-3"}).status_code == 206
    assert len(list(audit.events(db, audit.Wanted()))) == before + 1


def test_only_a_key_with_the_scope_reads_the_trail_of_its_own_tenant(client: TestClient, db: Database, keyring: Keyring) -> None:
    everything = keys.create(db, keyring, name="all")
    assert (answer := client.get("/v1/audit", headers=header(everything))).status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["error"]["code"], "audit:read" in answer.json()["detail"]) == ("insufficient_scope", True)
    mine, theirs = reader(db, keyring), reader(db, keyring, tenant="other")
    assert client.get("/v1/batches", headers=mine).status_code == 403  # and it may do nothing else
    job = submit(db, keyring, 1)
    seen, foreign = (client.get("/v1/audit", headers=who).json()["data"] for who in (mine, theirs))
    assert [event["subject"]["id"] for event in seen if event["action"] == "job.create"] == [job.label]
    assert [event["action"] for event in foreign] == ["key.create"]
    place = seen[-1]["id"]
    stolen = client.get("/v1/audit", headers=theirs, params={"after": place})
    assert (stolen.status_code, stolen.json()["error"]["code"]) == (400, "invalid_cursor")
    assert client.get("/v1/audit", headers=theirs, params={"batch": job.label}).json()["data"] == []


def test_pages_meet_each_row_once_and_filters_narrow_them(client: TestClient, db: Database, keyring: Keyring) -> None:
    who = reader(db, keyring)
    first, second = submit(db, keyring, 1), submit(db, keyring, 1)
    with db.begin() as connection:
        for _ in range(5):  # of one transaction, so of one time
            audit.record(connection, 1, "job.pause", second.label)
    found: list[Any] = []
    after: dict[str, Any] = {}
    while page := client.get("/v1/audit", headers=who, params={"limit": 2, **after}).json():
        found += page["data"]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    whole = client.get("/v1/audit", headers=who).json()["data"]
    assert found == whole
    assert len({event["id"] for event in found}) == len(found)
    assert [event["at"] for event in found] == sorted((event["at"] for event in found), reverse=True)

    def asked(**params: Any) -> list[str]:
        return [event["action"] for event in client.get("/v1/audit", headers=who, params=params).json()["data"]]

    assert asked(batch=first.label.replace("job_", "batch_")) == ["job.create"]
    assert asked(action="job.pause") == ["job.pause"] * 5
    assert asked(actor="key") == []
    assert set(asked(actor="command")) >= {"job.create"}
    assert asked(actor=found[0]["actor"]["id"], action="job.create") == ["job.create"] * 2
    assert asked(since=4e9) == asked(until=1) == []
    for params, status, code in (
        ({"action": "job.dance"}, 400, "unknown_action"),
        ({"after": "audit_1"}, 400, "invalid_cursor"),
        ({"limit": 0}, 422, "invalid_parameter"),
        ({"who": "me"}, 400, "unknown_parameter"),
        ({"batch": "nonsense"}, 404, "not_found"),
    ):
        refused = client.get("/v1/audit", headers=who, params=params)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code), params


def test_a_row_says_what_the_description_says(client: TestClient, app: Any, db: Database, keyring: Keyring) -> None:
    who = reader(db, keyring)
    job = submit(db, keyring, 1)
    (event,) = client.get("/v1/audit", headers=who, params={"batch": job.label}).json()["data"]
    assert event["object"] == "audit_event"
    assert event["subject"] == {"type": "job", "id": job.label}
    assert event["detail"] == {"lane": "bulk", "priority": 0, "has_callback": False}
    (action,) = [one for one in app.openapi()["paths"]["/v1/audit"]["get"]["parameters"] if one["name"] == "action"]
    assert set(ACTIONS) == set(str(action["schema"]).replace("'", " ").replace(",", " ").split()) & set(ACTIONS)


def test_a_request_names_its_actor_for_no_other(client: TestClient, db: Database, keyring: Keyring) -> None:
    key = header(keys.create(db, keyring, name="k"))
    client.post("/v1/files", headers=key, **FORM)
    audit.note(db, 1, "job.export", "job_x")
    (last,) = audit.page(db, audit.Wanted(actions=["job.export"]), after=None, limit=1, newest_first=True)
    assert Actor(last.actor_kind, last.actor, last.request_id).request_id is None

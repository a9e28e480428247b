"""Policies over HTTP: what the commands do, for the key's own tenant; hostile documents cost little."""

import asyncio
import inspect
import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.routes import policies as routes
from api.server import create_app
from guardfleet.client.asynchronous import AsyncDirectClient
from guardfleet.client.direct import DirectClient
from guardfleet.client.http import AsyncClient, Client
from guardfleet.client.verdict import Verdict
from guardfleet.errors import RejectedError
from guardfleet.jobs import redecide as use_case
from guardfleet.policy import presets
from guardfleet.policy.reading import MOST_BYTES, MOST_PROBLEMS, read
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, keys
from guardfleet.store.audit import Wanted
from guardfleet.store.policy import policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import SAFE, UNSAFE, UNSURE
from tests.services.patience import patience
from tests.services.served import served
from tests.services.stored import scalar
from tests.store.test_policies import finished

YAML, JSON = {"content-type": "application/yaml"}, {"content-type": "application/json; charset=utf-8"}
STRICT = presets.text("strict")
NEVER = (
    "name: x\ndefault: allow\nrules:\n  - {id: a, when: {severity: safe, category: PII}, action: block}\n  - {id: a, action: odd}\n"
)


@pytest.fixture
def app(database_url: str, tmp_path: pathlib.Path) -> Any:
    return create_app(load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path))


def of(app: Any, db: Database, keyring: Keyring, **asked: Any) -> TestClient:
    key = keys.create(db, keyring, name="test", **asked)
    return TestClient(app, raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"})


@pytest.fixture
def client(app: Any, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    with of(app, db, keyring) as made:
        yield made


@pytest.fixture
def other(app: Any, db: Database, keyring: Keyring) -> TestClient:
    return of(app, db, keyring, tenant="other")


def added(client: TestClient, document: str = STRICT, **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/policies", content=document, headers=YAML | headers)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_from_a_preset_to_going_back(client: TestClient, db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [SAFE, UNSAFE, UNSURE] * 10)
    preset = client.get("/v1/policies/presets/strict")
    assert (preset.text, preset.headers["content-type"].split(";")[0]) == (STRICT, "application/yaml")
    checked = client.post("/v1/policies/check", content=preset.text, headers=YAML).json()
    assert checked == {"object": "policy.check", "valid": True, "name": "strict", "shadow": False, "rules": 3}
    tried = client.post(f"/v1/policies/test?batch_id={job.label}", content=preset.text, headers=YAML).json()
    assert (tried["object"], tried["texts"], tried["changed"], tried["complete"], tried["next"]) == (
        "policy.test",
        30,
        30,
        True,
        None,
    )
    assert tried["matrix"]["none"] == tried["actions"] == {"allow": 10, "flag": 0, "review": 10, "block": 10}
    assert tried["rules"] == {"unsafe": 10, "controversial": 10, "(default)": 10}
    assert tried["examples"][0] == {"job": job.label, "seq": 0, "old": "none", "new": "allow"}
    assert scalar(db, "select count(*) from decision") == 0
    made = client.post("/v1/policies", content=preset.text, headers=YAML)
    assert (made.status_code, made.json()["id"], made.json()["document"]["name"]) == (201, "strict@1", "strict")
    applied = client.post("/v1/policies/strict@1/activate").json()
    assert (applied["id"], applied["active"], applied["replaced"]) == ("strict@1", True, None)
    done = client.post("/v1/redecisions", json={"batch_id": job.label}).json()
    assert done == {
        "object": "redecision", "policy": "strict@1", "active": True, "texts": 30, "texts_left": 0, "shards_without_verdicts": 0,
        "complete": True,
    }  # fmt: skip
    softer = json.dumps(made.json()["document"] | {"default": "flag"})
    second = client.post("/v1/policies", content=softer, headers=JSON)
    assert (second.status_code, second.json()["id"]) == (201, "strict@2")
    assert client.post("/v1/policies/strict@2/activate").json()["replaced"] == "strict@1"
    assert client.post("/v1/redecisions", json={"since": 0}).json()["texts"] == 30
    rows = client.get(f"/v1/batches/{job.label}/results").json()["data"]
    assert [row["decision"]["action"] for row in rows] == ["flag", "block", "review"] * 10
    client.post("/v1/policies/strict@1/activate")
    rows = client.get(f"/v1/batches/{job.label}/results").json()["data"]
    assert {row["decision"]["policy"] for row in rows} == {"strict@1"}
    listed = client.get("/v1/policies").json()
    assert [(one["id"], one["active"]) for one in listed["data"]] == [("strict@2", False), ("strict@1", True)]
    assert (listed["active"], listed["shadow"], "document" in listed["data"][0]) == ("strict@1", None, False)
    assert client.post("/v1/policies/strict@1/deactivate").json()["active"] is False
    assert code_of(client.post("/v1/policies/strict@1/deactivate")) == (409, "policy_not_active")
    assert client.get("/v1/policies").json()["active"] is None
    assert client.get("/v1/policies/schema").json()["properties"].keys() >= {"name", "default", "errors", "rules"}


def test_a_document_is_answered_with_all_that_is_wrong_and_where(client: TestClient, db: Database) -> None:
    for path in ("/v1/policies/check", "/v1/policies", "/v1/policies/test?since=0"):
        answer = client.post(path, content=NEVER.replace("odd", "flag"), headers=YAML)
        assert code_of(answer) == (422, "invalid_policy")
        assert answer.headers["content-type"] == "application/problem+json"
        assert [(one["line"], one["where"]) for one in answer.json()["problems"]] == [(4, "rules[0].when"), (5, "rules[1].id")]
        assert all(one["cause"] in answer.json()["detail"] for one in answer.json()["problems"])
    (one,) = client.post("/v1/policies/check", content=NEVER, headers=YAML).json()["problems"]
    assert (one["line"], one["where"]) == (5, "rules[1].action")
    (no_line,) = client.post("/v1/policies/check", content=b"", headers=JSON).json()["problems"]
    assert no_line["line"] is None
    assert scalar(db, "select count(*) from policy") == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 40_000, (422, "invalid_policy")),
        (b"- " * 100_000, (422, "invalid_policy")),
        (b"name: &a x\ndefault: *a\n", (422, "invalid_policy")),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", (422, "invalid_policy")),
        (b'? "' + b"k" * 120_000 + b'"\n:\n' + b" a: 1\n" * 20_000, (422, "invalid_policy")),
        (b"".join(b"k%d: 1\n" % i for i in range(20_000)), (422, "invalid_policy")),
        (b"x: [" + b"a," * 40_000 + b"]", (422, "invalid_policy")),
        (b"{}" * 100_000, (413, "too_many_values")),
        (b"x" * (MOST_BYTES + 1), (413, "too_large")),
        (b"x" * 10_000_000, (413, "too_large")),
        (b"name: \xff\xfe", (400, "invalid_encoding")),
        ("name: x".encode("utf-16"), (400, "invalid_json")),
        (b"name: a\0b\n", (400, "invalid_json")),
        (b"!!python/object/apply:os.system [x]", (422, "invalid_policy")),
        (b'{"name": "\\ud800", "default": "flag"}', (422, "invalid_policy")),
        (b'{"name": "x", "default": "flag", "default": "allow"}', (422, "invalid_policy")),
        (b"%YAML 9.9\n---\na", (422, "invalid_policy")),
        (b"a\n---\nb\n", (422, "invalid_policy")),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_a_hostile_document_is_refused_and_costs_little(client: TestClient, body: bytes, expected: tuple[int, str]) -> None:
    began = time.monotonic()
    answer = client.post("/v1/policies/check", content=body, headers=YAML)
    assert code_of(answer) == expected, answer.text[:300]
    assert time.monotonic() - began < patience(5)
    assert len(answer.content) < 500 * MOST_PROBLEMS
    chunked = client.post("/v1/policies", content=(part for part in (body,)), headers=YAML)
    assert chunked.status_code == expected[0]


def test_another_kind_of_body_is_refused(client: TestClient) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "multipart/form-data; boundary=x"}):
        assert code_of(client.post("/v1/policies", content=STRICT, headers=headers)) == (415, "unsupported_content_type")
    packed = YAML | {"content-encoding": "gzip"}
    assert code_of(client.post("/v1/policies", content=STRICT, headers=packed)) == (415, "unsupported_encoding")


def test_the_same_document_is_the_same_version_and_a_repeated_request_gets_what_the_first_one_made(
    client: TestClient, other: TestClient
) -> None:
    keyed = {"idempotency-key": "k"}
    assert added(client, STRICT, **keyed)["id"] == "strict@1"
    assert added(client, STRICT)["id"] == "strict@1"
    assert added(client, STRICT.replace("block", "flag"))["id"] == "strict@2"
    again = client.post("/v1/policies", content=STRICT, headers=YAML | keyed)
    assert (again.status_code, again.json()["id"]) == (200, "strict@1"), "though another version is newer by now"
    assert code_of(client.post("/v1/policies", content=STRICT + "\n", headers=YAML | keyed)) == (422, "idempotency_key_reused")
    assert added(other, STRICT, **keyed)["id"] == "strict@1"
    assert added(client, STRICT)["id"] == "strict@3"


def test_pages_meet_each_version_once(client: TestClient, other: TestClient) -> None:
    for i in range(5):
        added(client, f"name: p{i % 2}\ndefault: flag\ndescription: {'x' * i}y\n")
    found, after = [], ""
    while True:
        page = client.get(f"/v1/policies?limit=2{after}").json()
        found += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert found == ["p0@3", "p1@2", "p0@2", "p1@1", "p0@1"]
    for who, place in ((client, "p9@1"), (client, "p0@x"), (other, "p0@1")):
        assert who.get(f"/v1/policies?after={place}").status_code == 400
    assert client.head("/v1/policies").content == b""
    assert client.head("/v1/policies/p0@1").status_code == 200
    assert client.head("/v1/policies/p0@1/activate").status_code == 405
    assert client.get("/v1/policies/p0").status_code == 404


def test_nothing_of_another_tenant_is_seen_or_done(client: TestClient, other: TestClient, db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [UNSAFE] * 5)
    added(client)
    client.post("/v1/policies/strict@1/activate")
    for method, path, sent in (
        ("get", "/v1/policies/strict@1", {}),
        ("post", "/v1/policies/strict@1/activate", {}),
        ("post", "/v1/policies/strict@1/deactivate", {}),
        ("post", f"/v1/policies/test?batch_id={job.label}", {"content": STRICT, "headers": YAML}),
        ("post", "/v1/redecisions", {"json": {"batch_id": job.label, "policy": "strict@1"}}),
        ("post", "/v1/redecisions", {"json": {"since": 0, "policy": "strict@1"}}),
        ("post", "/v1/redecisions", {"json": {"since": 0, "policy": "strict"}}),
    ):
        answer = other.request(method, path, **sent)
        assert code_of(answer) == (404, "not_found"), path
        assert answer.json()["detail"].replace(job.label, "") == client.request(
            method, path.replace(job.label, "batch_" + "0" * 32).replace("strict", "absent"), **_elsewhere(sent)
        ).json()["detail"].replace("absent", "strict").replace("job_" + "0" * 32, ""), "as if there were none"
    assert code_of(other.post("/v1/redecisions", json={"since": 0})) == (400, "rejected")
    assert other.get("/v1/policies").json() == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False, "active": None, "shadow": None
    }  # fmt: skip
    mine = other.post("/v1/policies/test?since=0", content=STRICT, headers=YAML).json()
    assert mine["texts"] == 0
    added(other, STRICT)
    other.post("/v1/policies/strict@1/activate")
    assert other.post("/v1/redecisions", json={"since": 0}).json()["texts"] == 0
    assert client.get("/v1/policies").json()["active"] == "strict@1"
    assert scalar(db, "select count(*) from decision") == 0


def _elsewhere(sent: dict[str, Any]) -> dict[str, Any]:
    """The same of what nobody has."""
    if "json" not in sent:
        return sent
    known = {"batch_id": "batch_" + "0" * 32, "policy": sent["json"]["policy"].replace("strict", "absent")}
    return {"json": sent["json"] | {name: value for name, value in known.items() if name in sent["json"]}}


def test_a_scope_of_its_own_is_needed_and_writing_includes_reading(
    app: Any, client: TestClient, db: Database, keyring: Keyring
) -> None:
    added(client)
    batches = of(app, db, keyring, scopes=["batches:write"])
    reader, writer = (of(app, db, keyring, scopes=[f"policies:{what}"]) for what in ("read", "write"))
    for path in ("/v1/policies", "/v1/policies/strict@1", "/v1/policies/schema", "/v1/policies/presets/loose"):
        assert code_of(batches.get(path)) == (403, "insufficient_scope")
        assert (reader.get(path).status_code, writer.get(path).status_code) == (200, 200)
    for path in ("/v1/policies", "/v1/policies/strict@1/activate", "/v1/policies/strict@1/deactivate", "/v1/redecisions"):
        assert code_of(reader.post(path)) == (403, "insufficient_scope")
    assert writer.post("/v1/policies/strict@1/activate").status_code == 200
    assert client.get("/v1/policies/presets/odd").status_code == 404


def test_wrong_requests_are_told_what_is_wrong(client: TestClient, db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [SAFE])
    test = "/v1/policies/test"
    for path in (test, f"{test}?since=0&batch_id={job.label}"):
        assert code_of(client.post(path, content=STRICT, headers=YAML)) == (400, "invalid_scope")
    for after in ("x", f"{job.label}", f"{job.label}.x", f"{job.label}.-1", f"{job.label}.{'9' * 30}", f"batch_{'0' * 32}.1"):
        assert code_of(client.post(f"{test}?since=0&after={after}", content=STRICT, headers=YAML)) == (400, "invalid_cursor"), after
    for sent in ({}, {"since": 0, "batch_id": job.label}):
        assert code_of(client.post("/v1/redecisions", json=sent)) == (400, "invalid_scope")
    for sent in ({"since": "0"}, {"since": -1}, {"batch_id": 7}, {"since": 0, "who": 1}, {"since": 0, "policy": ""}):
        assert code_of(client.post("/v1/redecisions", json=sent)) == (422, "invalid_parameter"), sent
    assert code_of(client.post("/v1/redecisions", json={"since": 0})) == (400, "rejected"), "no policy is active"
    assert code_of(client.post("/v1/redecisions", json={"since": 0, "policy": "a\x00b"})) == (400, "invalid_parameter")
    for path in ("strict@0", "strict@x", f"strict@{'9' * 30}"):
        assert client.get(f"/v1/policies/{path}").status_code == 422, path
    assert client.get("/v1/policies/strict@7").status_code == 404


def test_a_policy_of_a_newer_release_is_not_activated(client: TestClient, db: Database) -> None:
    added(client)
    with db.begin() as connection:
        connection.execute("""update policy set document = jsonb_set(document, '{rules,0,when}', '{"smell": "odd"}')""")
    assert code_of(client.post("/v1/policies/strict@1/activate")) == (400, "rejected")
    assert client.get("/v1/policies/strict@1").json()["rules"] == 3
    with db.begin() as connection:
        connection.execute("""update policy set document = document || '{"rules": {"first": 1}}'""")
    assert [one["rules"] for one in client.get("/v1/policies").json()["data"]] == [0]


def test_long_work_is_done_in_pieces_until_it_is_complete(
    client: TestClient, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [finished(db, keyring, [UNSAFE, SAFE, UNSURE] * 10, shard_texts=3) for _ in range(2)]
    added(client)
    client.post("/v1/policies/strict@1/activate")
    monkeypatch.setattr(use_case, "SHARDS_AT_ONCE", 2)
    whole = client.post("/v1/policies/test?since=0", content=STRICT, headers=YAML).json()
    at_once = {"prefer": "wait=0"}
    texts, n, after = 0, 0, ""
    while True:
        piece = client.post(f"/v1/policies/test?since=0{after}", content=STRICT, headers=YAML | at_once).json()
        texts, n = texts + piece["texts"], n + 1
        if piece["complete"]:
            break
        after = f"&after={piece['next']}"
    assert (texts, whole["texts"], n) == (60, 60, 10)
    left, calls = 60, 0
    while True:
        done = client.post("/v1/redecisions", json={"since": 0}, headers=at_once).json()
        left, calls = left - done["texts"], calls + 1
        if done["complete"]:
            break
        assert done["texts_left"] == left
        assert done["texts"] >= 3
    assert (left, calls > 4) == (0, True)
    assert scalar(db, "select count(*) from decision") == 20
    after_all = client.post("/v1/redecisions", json={"batch_id": jobs[0].label}).json()
    assert (after_all["texts"], after_all["complete"]) == (0, True)


def test_one_pass_of_a_key_at_a_time(app: Any, client: TestClient) -> None:
    context = app.state.context
    assert routes.LONGEST_PASS_S >= routes.PASS_S
    key_id = scalar(context.db, "select max(id) from api_key")
    added(client)
    with context.passes.taken(key_id):
        sent = client.post("/v1/redecisions", json={"since": 0, "policy": "strict"})
        assert code_of(sent) == (429, "too_many_passes")
        assert sent.headers["retry-after"]
    assert client.post("/v1/redecisions", json={"since": 0, "policy": "strict"}).status_code == 200


def test_of_activations_at_once_each_names_the_one_that_it_replaced(client: TestClient, db: Database) -> None:
    labels = [added(client, f"name: p{i}\ndefault: flag\n")["id"] for i in range(6)]
    replaced: dict[str, str | None] = {}
    versions = [policies.get(db, 1, label) for label in labels]

    def apply(version: policies.Version) -> None:
        replaced[version.label] = policies.activate(db, version)

    threads = [threading.Thread(target=apply, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(30))
    active = client.get("/v1/policies").json()["active"]
    assert sorted([*filter(None, replaced.values()), active]) == labels, "a chain without a fork"
    said = [event.detail for event in audit.events(db, Wanted(actions=["policy.activate"]))]
    assert sorted(str(one and one.get("before")) for one in said) == sorted(map(str, replaced.values()))


def test_results_of_an_action(client: TestClient, other: TestClient, db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [SAFE, UNSAFE, UNSURE] * 10, shard_texts=7)
    url = f"/v1/batches/{job.label}"

    def ids(query: str) -> list[str]:
        found, after = [], ""
        while True:
            page = client.get(f"{url}/results?limit=4&{query}{after}").json()
            found += [row["id"] for row in page["data"]]
            after = f"&after={page['next']}"
            if page["complete"]:
                return found

    assert ids("action=block&action=review&action=allow&action=flag") == [], "nobody has decided"
    added(client)
    client.post("/v1/policies/strict@1/activate")
    client.post("/v1/redecisions", json={"batch_id": job.label})
    blocked, reviewed = [[f"id{i}" for i in range(30) if i % 3 == at] for at in (1, 2)]
    assert ids("action=block") == ids("action=block&severity=unsafe") == blocked
    assert ids("action=block&action=review") == [f"id{i}" for i in range(30) if i % 3]
    assert ids("action=block&severity=safe") == []
    for query in ("action=odd", "action=", "action=block&" * 5, "action=BLOCK"):
        assert code_of(client.get(f"{url}/results?{query}")) == (422, "invalid_parameter"), query
    lines = client.get(f"{url}/download?action=review").text.splitlines()
    assert [(row["id"], row["action"], row["decision"]["policy"]) for row in map(json.loads, lines)] == [
        (name, "review", "strict@1") for name in reviewed
    ]
    table = client.get(f"{url}/download?action=review&action=block&format=csv").text.splitlines()
    assert len(table) == 21
    assert client.get(f"{url}/download?action=flag").text == ""
    assert client.get(f"{url}/download?action=flag&format=csv").text.count("\n") == 1
    assert code_of(other.get(f"{url}/results?action=block")) == (404, "not_found")


def test_all_clients_take_an_action_and_give_the_same(app: Any, db: Database, keyring: Keyring, database_url: str) -> None:
    job = finished(db, keyring, [SAFE, UNSAFE, UNSURE] * 10, shard_texts=7)
    version, _ = policies.add(db, 1, read(STRICT))
    policies.activate(db, version)
    use_case.redecide(db, version, Scope(1, job.id))
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=app.state.context.settings.data_dir)
    direct = DirectClient(db, keyring, settings)
    with served(settings) as url, Client(url, keys.create(db, keyring, name="k")) as over_http:

        async def several(client: Any, action: Any) -> list[Verdict]:
            return [verdict async for verdict in client.results(job.label, action=action)]

        async def both(action: Any) -> list[list[Verdict]]:
            async with AsyncClient(url, keys.create(db, keyring, name="k")) as client:
                return [await several(client, action), await several(AsyncDirectClient(direct), action)]

        for action, n in (("block", 10), (["block", "review"], 20), (["flag"], 0), ([], 30), (None, 30)):
            found = [
                list(over_http.results(job.label, action=action)),
                list(direct.results(job.label, action=action)),
                *asyncio.run(both(action)),
            ]
            assert found[0] == found[1] == found[2] == found[3]
            assert len(found[0]) == n
            assert all(one["action"] == one["decision"]["action"] for one in found[0])
        for client in (over_http, direct):
            with pytest.raises(RejectedError):
                list(client.results(job.label, action="odd"))
    kinds = {inspect.signature(kind.results).replace(return_annotation=None) for kind in (DirectClient, Client)}
    assert len(kinds | {inspect.signature(AsyncClient.results).replace(return_annotation=None)}) == 1

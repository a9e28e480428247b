"""The HTTP API in process over real PostgreSQL: submit, poll, page, cancel, and errors a client can act on."""

import contextlib
import http.client
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.domain import ids
from guardfleet.domain.verdict import Model
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, models
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import UNSAFE
from tests.services.patience import patience
from tests.services.poison import change
from tests.services.served import served

JSON, JSONL = {"content-type": "application/json"}, {"content-type": "application/jsonl"}


@pytest.fixture
def api_settings(database_url: str) -> Settings:
    return load_settings(
        database_url=database_url, secret_key=SECRET_KEY, shard_texts=4, max_text_bytes=1000, api_max_body_bytes=100_000
    )


@pytest.fixture
def client(api_settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="test")
    with TestClient(create_app(api_settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


def lines(n: int) -> bytes:
    return b"\n".join(b'{"id": "r%d", "text": "text %d"}' % (i, i) for i in range(n))


def judge(db: Database, batch: dict[str, Any], *nos: int) -> None:
    job = views.get(db, ids.JOB.parse(batch["id"]))
    model_id = models.register(db, Model("m", "r", "p"))
    for no in nos:
        held = leases.claim(db, job.id, no, worker="w", lease_s=60)
        assert held is not None
        completion.finish(db, held, [Row(f"r{held.first_seq + i}", UNSAFE) for i in range(held.n)], model_id=model_id)


def test_a_batch_is_taken_polled_paged_and_completed(client: TestClient, db: Database) -> None:
    created = client.post("/v1/batches?name=mine", content=lines(10), headers=JSONL)
    batch = created.json()
    assert created.status_code == 200
    assert created.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["object"], batch["status"], batch["request_counts"]["total"]) == ("batch", "in_progress", 10)
    judge(db, batch, 2, 0)
    page = client.get(f"/v1/batches/{batch['id']}/results?limit=4").json()
    assert [row["id"] for row in page["data"]] == ["r8", "r9", "r0", "r1"]  # in the order they were committed
    assert (page["has_more"], page["complete"]) == (True, False)
    judge(db, batch, 1)
    seen = [row["id"] for row in page["data"]]
    while not page["complete"]:
        page = client.get(f"/v1/batches/{batch['id']}/results?limit=4&after={page['next']}").json()
        seen += [row["id"] for row in page["data"]]
    assert sorted(seen) == sorted(f"r{i}" for i in range(10))
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert (done["status"], done["severities"]["unsafe"], done["model"]) == ("completed", 10, "m@r")
    row = page["data"][0] if page["data"] else client.get(f"/v1/batches/{batch['id']}/results").json()["data"][0]
    assert row["categories"] == ["Violent"]
    assert row["rationale"].startswith("Unsafe in Violent; probability safe 0.000, controversial 0.200, unsafe 0.800")


def test_bad_lines_are_named_and_the_rest_goes_on(client: TestClient) -> None:
    body = b'{"id": "a", "text": "x"}\n{oops\n\n{"id": "a", "text": "y"}\n{"id": "b", "text": "' + b"x" * 2000 + b'"}\n'
    batch = client.post("/v1/batches", content=body, headers=JSONL).json()
    assert [(e["line"], e["code"]) for e in batch["errors"]["data"]] == [(2, "invalid_json"), (4, "duplicate_id"), (5, "too_large")]
    assert batch["request_counts"] == {"total": 4, "completed": 0, "failed": 3}
    refused = client.post("/v1/batches?strict=true", content=body, headers=JSONL)
    assert (refused.status_code, refused.json()["detail"][:7]) == (400, "line 2:")


def test_cancelling_is_idempotent_and_refused_at_the_end(client: TestClient, db: Database) -> None:
    batch = client.post("/v1/batches", content=lines(10), headers=JSONL).json()
    judge(db, batch, 0)
    assert client.post(f"/v1/batches/{batch['id']}/cancel").json()["status"] == "cancelled"
    again = client.post(f"/v1/batches/{batch['id']}/cancel")
    assert (again.status_code, again.json()["request_counts"]["completed"]) == (200, 4)
    done = client.post("/v1/batches?allow_empty=true", content=b"", headers=JSONL).json()
    refused = client.post(f"/v1/batches/{done['id']}/cancel")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status", "code"),
    [
        ("GET", "/v1/batches/batch_nonsense", {}, None, 404, "not_found"),
        ("GET", "/v1/batches/batch_" + "0" * 32, {}, None, 404, "not_found"),
        ("GET", "/v1/nothing", {}, None, 404, "not_found"),
        ("PUT", "/v1/batches", {}, None, 405, "method_not_allowed"),
        ("POST", "/v1/batches", {"content-type": "text/plain"}, b"{}", 415, "unsupported_content_type"),
        ("POST", "/v1/batches", JSON, b"{}", 422, "invalid_parameter"),
        ("POST", "/v1/batches", JSONL | {"content-encoding": "br"}, b"x", 415, "unsupported_encoding"),
        ("POST", "/v1/batches", JSONL | {"content-encoding": "gzip"}, b"x", 400, "invalid_encoding"),
        ("POST", "/v1/batches", JSONL | {"content-encoding": "zstd"}, b"x", 400, "invalid_encoding"),
        ("POST", "/v1/batches", JSONL, b"x" * 100_001, 413, "too_large"),
        ("POST", "/v1/batches?callback_url=ftp://x", JSONL, b"", 400, "rejected"),
        ("POST", "/v1/batches?callback_url=http://169.254.169.254/", JSONL, b"", 400, "rejected"),
        ("POST", "/v1/batches?callback_url=http://0x7f.1/", JSONL, b"", 400, "rejected"),
        ("POST", "/v1/batches?interactive=perhaps", JSONL, b"", 422, "invalid_parameter"),
        ("POST", "/v1/batches?reuse=true&reuse=false", JSONL, b"", 400, "repeated_parameter"),
        ("POST", "/v1/batches", JSON | {"content-encoding": "gzip"}, b"{}", 415, "unsupported_encoding"),
        ("POST", "/v1/moderations", {"content-encoding": "deflate"}, b"{}", 415, "unsupported_encoding"),
        ("POST", "/v1/moderations?model=x", {}, b"{}", 400, "unknown_parameter"),
        ("GET", "/v1/batches?limit=1&limit=2", {}, None, 400, "repeated_parameter"),
        ("GET", "/v1/files?severity=unsafe", {}, None, 400, "unknown_parameter"),
    ],
)
def test_every_error_is_problem_json_with_an_openai_error_inside(
    client: TestClient, method: str, path: str, headers: dict[str, str], content: bytes | None, status: int, code: str
) -> None:
    answer = client.request(method, path, headers=headers, content=content)
    body = answer.json()
    assert (answer.status_code, body["status"], body["error"]["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["error"]["message"] == body["detail"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_page_takes_only_the_cursor_of_its_own_batch(client: TestClient) -> None:
    first, second = (client.post("/v1/batches", content=lines(1), headers=JSONL).json()["id"] for _ in range(2))
    cursor = client.get(f"/v1/batches/{first}/results").json()["next"]
    for bad in (cursor[:-2] + "AA", "x", "é", "A" * 60):
        assert client.get(f"/v1/batches/{first}/results", params={"after": bad}).json()["error"]["code"] == "invalid_cursor"
    assert client.get(f"/v1/batches/{second}/results", params={"after": cursor}).status_code == 400
    assert client.get(f"/v1/batches/{first}/results?limit=0").status_code == 422


def test_without_a_valid_key_nothing_is_told(client: TestClient) -> None:
    batch = client.post("/v1/batches", content=lines(1), headers=JSONL).json()["id"]
    for header in ("", "Bearer ", "Bearer gf_wrong", "Basic abc"):
        for method, path in (
            ("POST", "/v1/batches"),
            ("GET", f"/v1/batches/{batch}"),
            ("GET", f"/v1/batches/{batch}/results"),
            ("POST", f"/v1/batches/{batch}/cancel"),
        ):
            answer = client.request(method, path, headers={"authorization": header})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_foreign_key_sees_no_batch(client: TestClient, db: Database, keyring: Keyring) -> None:
    batch = client.post("/v1/batches", content=lines(1), headers=JSONL).json()["id"]
    foreign = {"authorization": f"Bearer {keys.create(db, keyring, name='other', tenant='other')}"}
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel")):
        assert client.request(method, f"/v1/batches/{batch}{path}", headers=foreign).status_code == 404


def test_head_is_the_head_of_what_get_answers(client: TestClient, api_settings: Settings) -> None:
    batch = client.post("/v1/batches", content=lines(1), headers=JSONL).json()["id"]
    file = client.post("/v1/files", files={"file": ("x.jsonl", lines(1))}, data={"purpose": "batch"}).json()["id"]
    streams = (f"/v1/batches/{batch}/download", f"/v1/files/{file}/content")
    with (
        served(api_settings) as url,
        contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=patience(20))) as wire,
    ):
        for path in ("/readyz", "/openapi.json", "/v1/batches", f"/v1/batches/{batch}", "/v1/batches/batch_x", *streams):
            got, head = (asked(wire, method, path, client.headers["authorization"]) for method in ("GET", "HEAD"))
            assert got[:2] == head[:2], path
            assert head[2] == b"", path
        endless = asked(wire, "HEAD", f"/v1/batches/{batch}/events", client.headers["authorization"])
        assert endless[0] == 200
        assert "text/event-stream" in endless[1]["content-type"]
        assert asked(wire, "HEAD", "/v1/batches", "")[0] == 401
        assert asked(wire, "HEAD", f"/v1/batches/{batch}/cancel", client.headers["authorization"])[0] == 405
    assert client.put("/v1/batches").headers["allow"] == "GET, HEAD, POST"
    content = f"/v1/files/{file}/content"
    assert client.get(content, headers={"if-none-match": "*"}).status_code == 304


def asked(wire: http.client.HTTPConnection, method: str, path: str, key: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers without what is of each request, body; all on one connection, which a wrong framing would spoil."""
    wire.request(method, path, headers={"authorization": key})
    answer = wire.getresponse()
    own = ("x-request-id", "date", "transfer-encoding")
    headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in own}
    return answer.status, {name: value for name, value in headers.items() if "ratelimit" not in name}, answer.read()


def test_probes_need_no_key(client: TestClient) -> None:
    for path in ("/livez", "/readyz"):
        assert client.get(path, headers={"authorization": ""}).text == "ok\n"


def test_an_endless_line_is_one_refused_line(api_settings: Settings, db: Database, keyring: Keyring) -> None:
    key = keys.create(db, keyring, name="test")
    roomy = api_settings.but(api_max_body_bytes=1 << 30)
    with TestClient(create_app(roomy), headers={"authorization": f"Bearer {key}"}) as client:
        made = client.post("/v1/batches", content=b'"fine"\n' + b"x" * 10_000_000, headers=JSONL).json()
    assert [(error["line"], error["code"]) for error in made["errors"]["data"]] == [(2, "too_large")]
    assert made["request_counts"] == {"total": 2, "completed": 0, "failed": 1}


def test_a_database_that_is_away_is_a_retryable_answer(api_settings: Settings) -> None:
    from pydantic import SecretStr

    away = api_settings.but(database_url=SecretStr("postgresql://postgres@127.0.0.1:1/x"))
    with TestClient(create_app(away), raise_server_exceptions=False) as client:
        answer = client.get("/v1/batches/batch_" + "0" * 32, headers={"authorization": "Bearer gf_x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("sqlstate", ["57014", "53300"])
def test_a_statement_time_out_or_no_connection_is_a_retryable_answer(client: TestClient, db: Database, sqlstate: str) -> None:
    change(
        db,
        f"""create function refuse() returns trigger language plpgsql as
                  $f$ begin raise exception using errcode = '{sqlstate}'; end $f$;
                create trigger refuse before insert on job for each row execute function refuse()""",
    )
    for answer in (client.post("/v1/batches", content=lines(1), headers=JSONL), client.post("/v1/moderate", json={"text": "x"})):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_defect_is_a_problem_with_a_request_id(client: TestClient, db: Database) -> None:
    batch = client.post("/v1/batches", content=lines(1), headers=JSONL).json()["id"]
    with db.begin() as connection:
        connection.execute("drop table shard_done")
    answer = client.get(f"/v1/batches/{batch}/results")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"].startswith("req_")


def test_an_uncaught_text_is_in_no_log(client: TestClient, capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    canary = "canary-91aa"
    client.post("/v1/batches", content=f'{{"id": "1", "text": "{canary}"}}\n{{"{canary}'.encode(), headers=JSONL)
    out, err = capfd.readouterr()
    assert canary not in out + err


def test_a_batch_may_name_its_models_if_somebody_serves_them(client: TestClient, db: Database) -> None:
    wanted = "/v1/batches?model=small&second_model=large&sure=0.8&sample=0.05&long_texts=head"
    refused = client.post(wanted, content=lines(1), headers=JSONL)
    assert refused.status_code == 404
    assert "no worker has served a model 'small' yet" in refused.text
    for name in ("small", "large"):
        models.register(db, Model(name, "r", "p"))
    made = client.post(wanted, content=lines(1), headers=JSONL)
    assert made.headers["guardfleet-deprecated"] == ("sample=audit_fraction, second_model=escalate_to, sure=confidence_threshold")
    batch = made.json()
    old = {"second_model": "large", "sure": 0.8, "sample": 0.05}
    new = {"escalate_to": "large", "confidence_threshold": 0.8, "audit_fraction": 0.05}
    assert batch["cascade"] == {**new, **old, "escalated": 0, "sampled": 0, "agreed": 0}
    again = "/v1/batches?model=small&escalate_to=large&confidence_threshold=0.8&audit_fraction=0.05&long_texts=head"
    named = client.post(again, content=lines(1), headers=JSONL)
    assert named.json()["cascade"] == batch["cascade"]
    assert "guardfleet-deprecated" not in named.headers
    both = client.post(f"{again}&sure=0.8", content=lines(1), headers=JSONL)
    assert both.status_code == 400
    assert "sure is the old name of confidence_threshold" in both.text
    job = views.get(db, ids.JOB.parse(batch["id"]))
    assert (job.first_model, job.long_texts) == ("small", "head")
    for wrong in ("sure=0", "sample=2", "long_texts=middle"):
        assert client.post(f"/v1/batches?{wrong}", content=lines(1), headers=JSONL).status_code in (400, 422)


def test_a_batch_is_paused_resumed_and_says_how_it_goes(client: TestClient, db: Database) -> None:
    batch = client.post("/v1/batches?priority=7&reuse=false", content=lines(8), headers=JSONL).json()
    assert (batch["priority"], batch["paused"], batch["texts_per_second"], batch["eta_seconds"]) == (7, False, 0.0, None)
    assert client.post(f"/v1/batches/{batch['id']}/pause").json()["paused"] is True
    assert "paused since" in client.get(f"/v1/batches/{batch['id']}").json()["standstill"]
    assert client.post(f"/v1/batches/{batch['id']}/resume").json()["paused"] is False
    assert "no dispatcher is running" in client.get(f"/v1/batches/{batch['id']}").json()["standstill"]
    judge(db, batch, 0, 1)
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert (done["status"], done["standstill"]) == ("completed", None)
    for verb in ("pause", "resume"):
        ended = client.post(f"/v1/batches/{batch['id']}/{verb}")
        assert (ended.status_code, ended.json()["error"]["code"]) == (409, "batch_ended")
    assert client.post("/v1/batches?priority=101", content=lines(1), headers=JSONL).status_code == 422


def test_a_full_house_refuses_at_the_door_and_says_when_to_come_back(
    api_settings: Settings, db: Database, keyring: Keyring
) -> None:
    key = keys.create(db, keyring, name="test")
    small = api_settings.but(max_backlog_texts=5)
    with TestClient(create_app(small), headers={"authorization": f"Bearer {key}"}) as client:
        first = client.post("/v1/batches", content=lines(5), headers=JSONL).json()
        refused = client.post("/v1/batches", content=lines(1), headers=JSONL)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        judge(db, first, 0)
        assert client.post("/v1/batches", content=lines(1), headers=JSONL).status_code == 200

"""Labels, samples and reviews over HTTP, and suggested scores as Perspective takes them; each tenant its own."""

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.google.attributes import suggested
from api.server import create_app
from guardfleet import AsyncClient, AsyncDirectClient, Client, DirectClient
from guardfleet.domain.verdict import Category, Severity
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, keys
from guardfleet.store.audit import Wanted
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.served import served
from tests.services.stored import scalar, submit
from tests.store.test_labels import is_due, judged
from tests.store.test_policies import STRICT, TENANT, activated, finished

JSON = dict[str, Any]


@pytest.fixture
def client(database_url: str, tmp_path: pathlib.Path) -> Iterator[TestClient]:
    app = create_app(load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path))
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def mine(db: Database, keyring: Keyring) -> dict[str, str]:
    return {"authorization": f"Bearer {keys.create(db, keyring, name='mine')}"}


@pytest.fixture
def theirs(db: Database, keyring: Keyring) -> dict[str, str]:
    return {"authorization": f"Bearer {keys.create(db, keyring, name='theirs', tenant='acme')}"}


def batch(job: JobView) -> str:
    return job.label.replace("job_", "batch_")


def pages(client: TestClient, url: str, headers: dict[str, str], **params: Any) -> list[JSON]:
    found: list[JSON] = []
    after: JSON = {}
    while page := client.get(url, headers=headers, params={**params, **after}).json():
        found += page["data"]
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}
    return found


def test_labels_are_stored_once_each_refusal_has_its_index(
    client: TestClient, db: Database, keyring: Keyring, mine: Any, theirs: Any
) -> None:
    job = finished(db, keyring, judged(12))
    of = {"batch_id": batch(job), "author": "ann"}
    asked = [
        {**of, "seq": 1, "label": "unsafe", "categories": ["Violent"]},
        {**of, "seq": 99, "label": "unsafe"},
        {**of, "row_id": "id2", "label": "safe", "source": "golden"},
        {**of, "seq": 3, "label": "fine"},
    ]
    first, again = (client.post("/v1/labels", json={"labels": asked}, headers=mine).json() for _ in range(2))
    assert (first["new"], first["known"], again["new"], again["known"]) == (2, 0, 0, 2)
    assert [(one["index"], one["code"]) for one in first["refused"]] == [(1, "no_such_text"), (3, "unknown_label")]
    found = pages(client, "/v1/labels", mine, batch_id=batch(job), limit=1)
    assert [(one["object"], one["seq"], one["source"], one["label"], one["categories"]) for one in found] == [
        ("label", 1, "reviewer", "unsafe", ["Violent"]), ("label", 2, "golden", "safe", []),
    ]  # fmt: skip
    stolen = client.post("/v1/labels", json={"labels": asked[:1]}, headers=theirs).json()
    assert (stolen["new"], stolen["refused"][0]["code"]) == (0, "not_found")
    assert client.get("/v1/labels", headers=theirs).json()["data"] == []
    assert client.get("/v1/labels", headers=theirs, params={"batch_id": batch(job)}).status_code == 404
    assert client.get("/v1/labels", headers=mine, params={"after": "label_x"}).json()["error"]["code"] == "invalid_cursor"
    for wrong in ({"labels": []}, {"labels": asked[:1] * 1001}, {"labels": [{**asked[0], "note": "guest"}]}):
        assert client.post("/v1/labels", json=wrong, headers=mine).status_code == 422


def test_a_sample_is_drawn_once_for_a_repeated_request_and_read_in_pages(
    client: TestClient, db: Database, keyring: Keyring, mine: Any, theirs: Any
) -> None:
    job, running = finished(db, keyring, judged(60)), submit(db, keyring, 2)
    url, asked = f"/v1/batches/{batch(job)}/samples", {"n": 20, "by": ["random", "uncertain"], "slice": "lang", "seed": 3}
    once = mine | {"idempotency-key": "k"}
    made, again = (client.post(url, json=asked, headers=once).json() for _ in range(2))
    assert made == again
    assert (made["by"], made["population"], made["seed"]) == (["random", "uncertain", "slice"], 60, 3)
    assert scalar(db, "select count(*) from sample") == 1
    texts: list[JSON] = []
    after = -1
    while True:
        page = client.get(f"/v1/samples/{made['id']}", headers=mine, params={"limit": 6, "after": after}).json()
        texts, after = texts + page["data"], page["next"]
        if not page["has_more"]:
            break
    assert len({one["seq"] for one in texts}) == len(texts) == made["texts"]
    assert texts[0].keys() == {"sample_id", "batch_id", "seq", "row_id", "verdict", "inclusion_probability", "stratum"}
    given = [
        {"label": "safe", "author": "ann", **{name: one[name] for name in ("batch_id", "seq", "row_id", "sample_id")}}
        for one in texts
    ]
    assert client.post("/v1/labels", json={"labels": given}, headers=mine).json()["new"] == len(texts)
    told = {one["seq"]: one["inclusion_probability"] for one in texts}
    listed = client.get("/v1/labels", headers=mine, params={"limit": 1000}).json()["data"]
    assert {one["seq"]: one["inclusion_probability"] for one in listed} == told
    assert client.get(f"/v1/samples/{made['id']}", headers=theirs).status_code == 404
    assert client.post(url, json=asked, headers=theirs).status_code == 404
    for body, status, param in (
        ({"by": ["psychic"]}, 400, "by"), ({"n": 0}, 422, "n"), ({"n": 2, "slice": "lang"}, 400, "n"),
        ({"by": ["slice"]}, 400, "slice"),
    ):  # fmt: skip
        answer = client.post(url, json=body, headers=mine)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    early = client.post(f"/v1/batches/{batch(running)}/samples", json={}, headers=mine)
    assert (early.status_code, early.json()["error"]["code"]) == (409, "batch_not_ended")


def test_reviews_are_paged_and_a_label_takes_one_out(
    client: TestClient, db: Database, keyring: Keyring, mine: Any, theirs: Any
) -> None:
    activated(db, STRICT)
    job = finished(db, keyring, judged(40), shard_texts=9)
    meant = list(filter(is_due, range(40)))
    assert [one["seq"] for one in pages(client, "/v1/reviews", mine, limit=3)] == meant
    (first,) = client.get("/v1/reviews", headers=mine, params={"limit": 1, "batch_id": batch(job)}).json()["data"]
    assert first["object"] == "review"
    assert "text" not in str(first.keys())
    label = {name: first[name] for name in ("batch_id", "seq", "row_id")} | {"label": "safe", "author": "a"}
    client.post("/v1/labels", json={"labels": [label]}, headers=mine)
    assert [one["seq"] for one in pages(client, "/v1/reviews", mine)] == meant[1:]
    assert client.get("/v1/reviews", headers=theirs).json()["data"] == []
    assert client.get("/v1/reviews", headers=theirs, params={"batch_id": batch(job)}).status_code == 404
    assert client.get("/v1/reviews", headers=mine, params={"after": first["batch_id"]}).status_code == 400  # without a place
    for after in (first["id"], "x", "batch_1:2"):
        stolen = client.get("/v1/reviews", headers=theirs, params={"after": after})
        assert (stolen.status_code, stolen.json()["error"]["code"]) == (400, "invalid_cursor")


def test_a_policy_is_tested_by_labels_over_http_too(
    client: TestClient, db: Database, keyring: Keyring, mine: Any, theirs: Any
) -> None:
    job = finished(db, keyring, judged(40))
    url, document = (
        "/v1/policies/test",
        {"name": "x", "default": "allow", "rules": [{"id": "a", "when": {"severity": "unsafe"}, "action": "block"}]},
    )
    about = {"batch_id": batch(job)}
    assert client.post(url, json=document, params=about, headers=mine).json()["labelled"] is None
    assert client.post(f"/v1/batches/{batch(job)}/samples", json={"n": 40}, headers=mine).status_code == 200
    given = [{**about, "seq": seq, "label": "unsafe" if seq % 4 == 1 else "safe", "author": "a"} for seq in range(40)]
    assert client.post("/v1/labels", json={"labels": given}, headers=mine).json()["new"] == 40
    told = client.post(url, json=document, params=about, headers=mine).json()["labelled"]
    assert told["unsafe"]["new"]["block"] == {"value": 1.0, "low": 1.0, "high": 1.0}  # all are labelled: nothing is left to chance
    assert told["benign"]["new"]["allow"]["value"] == pytest.approx(20 / 30, abs=1e-4)  # errors are reviewed
    assert client.post(url, json=document, params={"since": 0}, headers=theirs).json()["labelled"] is None


def suggestion(text: str, **scores: float) -> JSON:
    return {
        "comment": {"text": text},
        "attributeScores": {name: {"summaryScore": {"value": value, "type": "PROBABILITY"}} for name, value in scores.items()},
        "languages": ["en"],
        "communityId": "mine",
        "clientToken": "token",
    }


def test_a_suggested_score_is_a_label_of_the_tenants_text_with_these_words(
    client: TestClient, db: Database, keyring: Keyring, mine: Any, theirs: Any
) -> None:
    job = finished(db, keyring, judged(4))
    digest = keyring.digest(TENANT, "you are c4n4ry")
    with db.begin() as connection:
        connection.execute("update verdict set digest = %(digest)s::uuid where seq = 1", {"digest": digest.hex()})
    url, asked = "/v1alpha1/comments:suggestscore", suggestion("you are c4n4ry", THREAT=0.9, PROFANITY=1.0)
    answer = client.post(url, json=asked, headers=mine)
    assert (answer.status_code, answer.headers["guardfleet-label"]) == (200, "stored"), answer.text
    assert answer.json() == {
        "detectedLanguages": ["und"], "requestedLanguages": ["en"], "unsupportedAttributes": ["PROFANITY"], "clientToken": "token",
    }  # fmt: skip
    assert answer.headers["guardfleet-ignored"] == "communityId"
    (label,) = labels.page(db, TENANT, limit=9)
    assert (label.batch_id, label.seq, label.as_dict()["label"], label.as_dict()["categories"]) == (
        batch(job),
        1,
        "unsafe",
        ["Violent"],
    )
    key = keys.every(db)[0].label
    assert (label.as_dict()["source"], label.author, label.sample_id) == ("suggestscore", key, None)
    assert client.post(url, json=asked, headers=mine).headers["guardfleet-label"] == "known"
    assert client.post(url, json=suggestion("never seen", TOXICITY=1), headers=mine).headers["guardfleet-label"] == "unknown_text"
    assert client.post(url, json=asked, headers=theirs).headers["guardfleet-label"] == "unknown_text"
    assert scalar(db, "select count(*) from label") == 1
    refused = client.post(url, json=suggestion("x", PROFANITY=1.0), headers=mine)
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert refused.json()["error"]["details"][0]["reason"] == "ATTRIBUTE_NOT_SUPPORTED"
    assert client.post(url, json=suggestion("x", TOXICITY=1.5), headers=mine).status_code == 422
    events = list(audit.events(db, Wanted(actions=["label.import"])))
    assert [(event.actor_kind, event.actor, event.request_id) for event in events] == [("key", key, answer.headers["x-request-id"])]
    assert "c4n4ry" not in scalar(db, "select string_agg(a::text, ' ') from audit_event a")


@pytest.mark.parametrize(
    ("scores", "severity", "categories"),
    [
        ({"TOXICITY": 1.0}, Severity.UNSAFE, Category.NONE),  # of three categories, and nobody knows which
        ({"INSULT": 0.7, "THREAT": 0.1}, Severity.UNSAFE, Category.UNETHICAL),
        ({"INSULT": 0.5, "THREAT": 0.4}, Severity.CONTROVERSIAL, Category.UNETHICAL | Category.VIOLENT),
        ({"TOXICITY": 0.0, "THREAT": 0.2}, Severity.SAFE, Category.NONE),
    ],
)
def test_the_highest_suggested_score_is_the_label(scores: Any, severity: Severity, categories: Category) -> None:
    assert suggested(scores) == (severity, categories)


def test_all_clients_label_draw_and_list_reviews_alike(
    database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    settings = load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, broker_url="redis://127.0.0.1:1/0"
    )
    activated(db, STRICT)
    job = finished(db, keyring, judged(12))
    labels_of = [{"batch_id": batch(job), "seq": seq, "label": "safe", "author": "ann", "source": "customer"} for seq in (0, 99, 2)]
    key = keys.create(db, keyring, name="k")

    async def over(client: Any) -> Any:
        async with client:
            report = await client.label(labels_of)
            sample = await client.sample(job.label, n=6, by=["uncertain"], seed=4)
            pages = [await client.reviews(job.label, limit=2), await client.reviews(limit=100)]
            return report, sample.texts, pages

    with served(settings) as url:
        with Client(url, key) as http, DirectClient.connect(settings) as direct:
            told = []
            for client in (http, direct):
                drawn = client.sample(job.label, n=6, by=["uncertain"], seed=4)
                report = client.label(labels_of)
                told.append((report, drawn.texts, [client.reviews(job.label, limit=2), client.reviews(limit=100)]))
        told.append(asyncio.run(over(AsyncClient(url, key))))
        told.append(asyncio.run(over(AsyncDirectClient(DirectClient.connect(settings)))))
    assert [(report.new, report.known) for report, *_ in told] == [(2, 0), (0, 2), (0, 2), (0, 2)]
    assert {(report.refused[0]["index"], report.refused[0]["code"]) for report, *_ in told} == {(1, "no_such_text")}
    texts = [[{name: text[name] for name in text if name != "sample_id"} for text in drawn] for _, drawn, _ in told]
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert len(texts[0]) == 6
    reviews = [[[one["id"] for one in page] for page in pages_of] for *_, pages_of in told]
    assert reviews[0] == reviews[1] == reviews[2] == reviews[3]
    assert [len(page) for page in reviews[0]] == [2, len(list(filter(is_due, range(12))))]

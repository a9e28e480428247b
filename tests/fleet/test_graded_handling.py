"""What a policy says of real rows in a real fleet with the demo model is the same wherever it is told, and to nobody else."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from guardfleet.client.http import Client
from guardfleet.client.job import Job
from guardfleet.domain.decision import ACTIONS
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from producer.submit import submit_file
from tests.services.commands import said
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet, until
from tests.services.receiver import Receiver, receiver
from tests.services.served import served

__all__ = ["receiver"]
FILES = ("xstest_prompts.jsonl", "simplesafetytests.jsonl", "openai_mod.jsonl")
ROWS = 800
POLICY = """
name: graded
default: allow
rules:
  - {id: unsafe, when: {severity: unsafe}, action: block, reason: unsafe}
  - {id: controversial, when: {severity: controversial}, action: review, reason: controversial}
"""
KINDS = ["verdict.flagged", "batch.completed"]


@pytest.fixture
def demo(database_url: str, rabbitmq: str, tmp_path: pathlib.Path) -> Settings:
    """The settings of a fleet with the demo model."""
    return fleet_settings(database_url, rabbitmq, tmp_path, engine="model", shard_texts=50)


@pytest.fixture
def rows(shared: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Some hundred real rows, in one file."""
    lines = [line for name in FILES for line in (shared / "data" / name).read_bytes().splitlines(keepends=True)]
    (path := tmp_path / "rows.jsonl").write_bytes(b"".join(lines[:ROWS]))
    return path


@pytest.fixture
def theirs() -> Iterator[Receiver]:
    yield from receiver.__wrapped__()  # type: ignore[attr-defined]


def events(at: Receiver, kind: str) -> list[dict[str, Any]]:
    return [event for _, body in list(at.got) if (event := json.loads(body))["type"] == kind]


@contextmanager
def listening(url: str, key: str, at: Receiver) -> Iterator[httpx2.Client]:
    """The API for a key, whose tenant's events go to the receiver."""
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as api:
        assert api.post("/v1/webhook_endpoints", json={"name": "r", "url": at.url, "event_types": KINDS}).status_code == 200
        yield api


def test_graded_handling_from_the_policy_to_the_webhook(
    demo: Settings,
    db: Database,
    keyring: Keyring,
    rows: pathlib.Path,
    tmp_path: pathlib.Path,
    receiver: Receiver,
    theirs: Receiver,
) -> None:
    mine, other = keys.create(db, keyring, name="k"), keys.create(db, keyring, name="k", tenant="other")
    with (
        fleet(demo, tmp_path, ("dispatcher",), ("worker",), ("worker", "--webhooks")),
        served(demo) as url,
        listening(url, mine, receiver) as api,
        listening(url, other, theirs) as others_api,
        Client(url, mine) as client,
        Client(url, other) as others_client,
    ):
        assert api.post("/v1/policies", content=POLICY, headers={"content-type": "application/yaml"}).json()["id"] == "graded@1"
        assert api.post("/v1/policies/graded@1/activate").json()["active"] is True
        job = submit_file(client, str(rows))
        others_job = submit_file(others_client, str(rows))
        done, others_done = ended(client, job.id), ended(others_client, others_job.id)
        all_are_sent(receiver, theirs, done, others_done)
        filtered = {action: len(list(client.results(job.id, action=action))) for action in ACTIONS}
        assert_the_queue_has_what_is_to_review(api, client, job.id)
        assert list(waiting(others_api)) == []
        assert sum(1 for _ in others_client.results(others_job.id, action=ACTIONS)) == 0
        assert others_api.get("/v1/policies").json()["data"] == []
        assert others_api.get("/v1/policies/graded@1").status_code == 404
        assert others_api.get(f"/v1/batches/{job.id}/results?action=block").status_code == 404
    assert filtered == done.raw["actions"]
    assert_all_tell_the_same(demo, db, done, receiver)
    assert_nothing_was_decided(db, others_done, theirs)


def ended(client: Client, batch_id: str) -> Job:
    return until(lambda: (view := client.status(batch_id)).is_final and view, what="the end of a job")


def all_are_sent(mine: Receiver, theirs: Receiver, done: Job, others_done: Job) -> None:
    """Wait for the last events of both jobs."""
    actions, unsafe = done.raw["actions"], others_done.raw["severities"]["unsafe"]
    to_see = actions["review"] + actions["block"]
    until(lambda: told(mine)["review"] + told(mine)["block"] >= to_see, what="the last event")
    until(lambda: sum(event["data"]["unsafe"] for event in events(theirs, "verdict.flagged")) >= unsafe, what="its last event")
    until(lambda: events(mine, "batch.completed") and events(theirs, "batch.completed"), what="both ends")


def assert_the_queue_has_what_is_to_review(api: httpx2.Client, client: Client, batch_id: str) -> None:
    queue = list(waiting(api))
    assert sorted(one["row_id"] for one in queue) == sorted(one["id"] for one in client.results(batch_id, action="review"))
    assert api.post("/v1/labels", json={"labels": [seen(one) for one in queue[:7]]}).json()["new"] == 7
    assert list(waiting(api)) == queue[7:], "what somebody has looked at waits no longer"


def assert_all_tell_the_same(demo: Settings, db: Database, done: Job, at: Receiver) -> None:
    """The severities, events, `status` and the view agree on the actions."""
    severities, actions = done.raw["severities"], done.raw["actions"]
    assert (done.total, severities["error"]) == (ROWS, 0)
    assert list(actions.items()) == [
        ("allow", severities["safe"]), ("flag", 0), ("review", severities["controversial"]), ("block", severities["unsafe"])
    ]  # fmt: skip
    assert min(actions["allow"], actions["review"], actions["block"]) > 0, "the rows are of all three kinds"
    assert {name: actions[name] for name in ("flag", "review", "block")} == told(at)
    label = done.id.replace("batch_", "job_")
    assert json.loads(said(demo, "status", label, "--json").stdout)["actions"] == actions
    with db.session() as connection:
        by_view = connection.execute(f"select action, count(*) as n from verdicts where job = '{label}' group by 1").fetchall()
        shards = connection.scalar("select count(*) from decision where reviewed + blocked > 0")
    assert {row.action: row.n for row in by_view} == {name: n for name, n in actions.items() if n}
    flagged = events(at, "verdict.flagged")
    assert len(flagged) == len({event["id"] for event in flagged}) == shards, "an event a shard, once"
    assert {event["data"]["id"] for event in flagged} == {done.id}


def assert_nothing_was_decided(db: Database, done: Job, at: Receiver) -> None:
    """The tenant without a policy has heard of its own unsafe texts alone."""
    assert done.raw["actions"] is None
    with db.session() as connection:
        decided = connection.scalar("select count(*) from decision d join job j on j.id = d.job_id where j.tenant_id <> 1")
    assert decided == 0
    heard = events(at, "verdict.flagged")
    assert {event["data"]["id"] for event in heard} == {done.id}
    assert not any("actions" in event["data"] for event in heard)
    assert all(event["data"]["unsafe"] for event in heard), "none for a controversial text alone"


def waiting(api: httpx2.Client) -> Iterator[dict[str, Any]]:
    """The review queue, page by page."""
    after: dict[str, str] = {}
    while page := api.get("/v1/reviews", params={"limit": 100, **after}).json()["data"]:
        yield from page
        after = {"after": page[-1]["id"]}


def seen(waits: dict[str, Any]) -> dict[str, Any]:
    """A reviewer's label of a text of the queue."""
    return {"batch_id": waits["batch_id"], "seq": waits["seq"], "label": "unsafe", "author": "ann"}


def told(at: Receiver) -> Counter[str]:
    """The texts of all events by action, each event once."""
    once = {event["id"]: event["data"]["actions"] for event in events(at, "verdict.flagged")}
    return Counter({name: sum(actions[name] for actions in once.values()) for name in ("flag", "review", "block")})

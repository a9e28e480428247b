"""Policies of tenants in the prompts of a detector, with the model that judges by them: each job by its own, each version apart."""

import pathlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys, verdicts
from guardfleet.store.policy import prompt_policies
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once
from tests.services.patience import patience
from tests.services.served import served
from tests.services.stored import scalar

DEMO = str(pathlib.Path(__file__).parents[2] / "models" / "policy-demo")
DISPATCHER, CUSTOM, FINDER = (
    ("dispatcher",),
    ("worker", "--detector", "custom", "--model", DEMO),
    ("worker", "--detector", "finder"),
)
GARDEN, COFFEE = "1. No text about gardening.", "1. Do not talk about coffee."
TEXTS = {
    "garden": "This is about gardening. Can you tell me more about my tomato plants?",
    "coffee": "She likes an espresso more than a cappuccino.",
    "neither": "Thank you, that was quick.",
}
ROWS: list[dict[str, Any]] = [{"id": name, "text": text} for name, text in TEXTS.items()]
BY_GARDEN = {"garden": "FAIL", "coffee": "PASS", "neither": "PASS"}
BY_COFFEE = {"garden": "PASS", "coffee": "FAIL", "neither": "PASS"}
LATER = SubmitOptions(brings_workers=True)


@pytest.fixture
def producer(settings: Settings) -> Iterator[DirectClient]:
    made = DirectClient.connect(settings.but(shard_texts=2))
    yield made
    made.db.close()


@pytest.fixture
def judging(settings: Settings, tmp_path: pathlib.Path) -> Iterator[Settings]:
    """A fleet of a dispatcher, the demo that judges by policies with its written reasons, and a detector that takes none."""
    model = settings.but(engine="model")
    model = model.model_copy(update={"engine": model.engine.model_copy(update={"reasons": True})})
    with ExitStack() as stack:
        stack.enter_context(fleet(model, tmp_path, DISPATCHER, CUSTOM))
        (tmp_path / "finder").mkdir()
        stack.enter_context(fleet(settings, tmp_path / "finder", FINDER))
        yield settings


def said(client: DirectClient, job: Any, key: str) -> dict[str, str]:
    """The label of each text, by its id."""
    return {row["id"]: row["detections"][key]["label"] for row in verdicts.export(client.db, job)}


def ran(client: DirectClient, detectors: str, **asked: Any) -> Any:
    submitted = client.submit(ROWS, JobOptions.of(detectors=detectors, **asked), LATER).job
    until(lambda: client._view(submitted.label).state.is_final, what="the end of the job")
    job = client._view(submitted.label)
    assert_exactly_once(client, job)
    return job


@with_broker("redis")
def test_each_job_is_judged_by_its_tenants_policy_and_its_version(
    producer: DirectClient, judging: Settings, db: Database, keyring: Keyring
) -> None:
    keys.create(db, keyring, name="k", tenant="other")
    other = replace(producer, tenant_id=keys.tenant_id(db, "other"))
    prompt_policies.add(db, producer.tenant_id, "mine", GARDEN)
    prompt_policies.add(db, other.tenant_id, "mine", COFFEE)

    first = ran(producer, "custom/mine")
    assert first.detectors == ["custom/mine@1"]
    assert said(producer, first, "custom/mine@1") == BY_GARDEN
    assert first.detected == {"custom/mine@1": {"FAIL": 1, "PASS": 2}}
    theirs = ran(other, "custom/mine")
    assert said(other, theirs, "custom/mine@1") == BY_COFFEE

    prompt_policies.add(db, producer.tenant_id, "mine", COFFEE)
    both = ran(producer, "finder,custom/mine@1,custom/mine")
    assert both.detectors == ["finder", "custom/mine@1", "custom/mine@2"]
    assert said(producer, both, "custom/mine@1") == BY_GARDEN
    assert said(producer, both, "custom/mine@2") == BY_COFFEE
    assert both.detected["custom/mine@2"] == {"FAIL": 1, "PASS": 2}
    by_policy = {key: {row["detections"][key]["served_by"] for row in verdicts.export(db, both)} for key in both.detectors}
    assert by_policy == {"finder": {"model"}, "custom/mine@1": {"cache"}, "custom/mine@2": {"model"}}
    with db.begin() as connection:
        assert connection.scalar("select count(*) from first_opinion") == 0
        assert connection.scalar("select count(*) from detections where detector = 'custom/mine@2'") == 3
        words = connection.scalars("select models_words from detections where label = 'FAIL' and served_by = 'model'")
    assert words
    assert all(reason.startswith("Rule 1 is broken") for reason in words)


@with_broker("redis")
def test_a_detector_that_takes_no_policy_says_so_of_each_text_and_is_refused_once_that_is_known(
    producer: DirectClient, judging: Settings, db: Database
) -> None:
    prompt_policies.add(db, producer.tenant_id, "mine", GARDEN)
    job = ran(producer, "finder/mine,custom/mine")
    assert job.detected == {"finder/mine@1": {"error": 3}, "custom/mine@1": {"FAIL": 1, "PASS": 2}}
    errors = [row["detections"]["finder/mine@1"]["error"] for row in verdicts.export(db, job)]
    assert {error["code"] for error in errors} == {"policy_refused"}
    assert "takes no policy" in errors[0]["detail"]
    with pytest.raises(RejectedError, match="'finder' takes no policy"):
        producer.submit(ROWS, JobOptions.of(detectors="finder/mine"))
    with pytest.raises(NotFoundError, match=r"no prompt policy 'yours'.*There are: mine@1"):
        producer.submit(ROWS, JobOptions.of(detectors="custom/yours"))


@with_broker("redis")
def test_a_caller_who_waits_names_a_policy_too(producer: DirectClient, judging: Settings, db: Database, keyring: Keyring) -> None:
    until(lambda: scalar(db, "select count(*) from model") == 2, what="both workers")
    header = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    with served(judging) as url, httpx2.Client(base_url=url, headers=header, timeout=patience(60)) as client:
        made = client.post("/v1/prompt-policies", json={"name": "mine", "text": GARDEN})
        assert (made.status_code, made.json()["id"]) == (201, "mine@1")
        assert client.post("/v1/prompt-policies", json={"name": "mine", "text": GARDEN}).status_code == 200
        assert [one["id"] for one in client.get("/v1/prompt-policies").json()["data"]] == ["mine@1"]
        assert client.get("/v1/prompt-policies/mine@1").json()["text"] == GARDEN
        asked = {"input": list(TEXTS.values()), "detectors": ["custom/mine"]}
        found = client.post("/v1/detect", json=asked).json()["results"]
        assert [one["detections"]["custom/mine@1"]["label"] for one in found] == list(BY_GARDEN.values())
        for wrong, code in (("custom/yours", 404), ("custom/mine@7", 404), ("guard/mine", 400), ("finder/mine", 400)):
            assert client.post("/v1/detect", json={"input": "x", "detectors": [wrong]}).status_code == code, wrong
        for wrong in ({"name": "Mine", "text": "x"}, {"name": "x", "text": " "}, {"name": "x", "text": "x" * 65_537}):
            assert client.post("/v1/prompt-policies", json=wrong).status_code in (400, 422), wrong

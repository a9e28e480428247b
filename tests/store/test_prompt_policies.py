"""Policies for prompts as rows: versions, tenants, what a job pins, and what rules read of detections by several of them."""

from typing import Any

import pytest

from guardfleet.domain.detection import keys_of
from guardfleet.domain.options import JobOptions
from guardfleet.domain.plan import detectors_of
from guardfleet.domain.verdict import Model
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs import redecide
from guardfleet.jobs.submit import pinned
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, keys, models, verdicts
from guardfleet.store.audit import Wanted
from guardfleet.store.jobs import views
from guardfleet.store.policy import policies, prompt_policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from tests.services.detected import CLEAR, FOUND, SHORT, detected
from tests.services.judged import SAFE
from tests.services.stored import MODEL, new_job, submit, took

POLICY = """
name: strict
default: allow
errors: review
rules:
  - {id: newest, when: {detectors: {finder/mine: {label: found}}}, action: flag}
  - {id: first, when: {detectors: {finder/mine@1: {label: found}}}, action: block}
  - {id: plain, when: {detectors: {finder: {label: too_short}}}, action: review}
"""


def test_a_text_is_a_version_once_and_each_tenant_has_its_own(db: Database, keyring: Keyring) -> None:
    keys.create(db, keyring, name="k", tenant="other")
    other = keys.tenant_id(db, "other")
    added = [prompt_policies.add(db, 1, "mine", text) for text in ("a", "a", "b", "a")]
    assert [(version.label, is_new) for version, is_new in added] == [
        ("mine@1", True), ("mine@1", False), ("mine@2", True), ("mine@3", True)
    ]  # fmt: skip
    assert prompt_policies.add(db, other, "mine", "theirs")[0].label == "mine@1"
    assert prompt_policies.text_of(db, 1, "mine@1") == "a"
    assert prompt_policies.text_of(db, other, "mine@1") == "theirs"
    assert [one.label for one in prompt_policies.page(db, 1, after="mine@3", limit=9)] == ["mine@2", "mine@1"]
    with pytest.raises(NotFoundError):
        prompt_policies.get(db, other, "mine@2")
    trail = [event for event in audit.events(db, Wanted()) if event.action == "prompt_policy.create"]
    assert [event.subject for event in trail] == ["mine@1", "mine@2", "mine@3", "mine@1"]
    assert all(event.detail is not None and event.detail.keys() == {"characters"} for event in trail)


@pytest.mark.parametrize(
    ("name", "text"), [("Mine", "x"), ("a@1", "x"), ("", "x"), ("a", " \n"), ("a", "x" * 65_537), ("a", "\0"), ("a", "\ud800")]
)
def test_what_no_prompt_can_hold_is_refused(db: Database, name: str, text: str) -> None:
    with pytest.raises(RejectedError):
        prompt_policies.add(db, 1, name, text)


def test_a_job_pins_the_newest_version_and_keeps_a_named_one(db: Database) -> None:
    for text in ("a", "b"):
        prompt_policies.add(db, 1, "mine", text)
    asked = JobOptions.of(detectors="x/mine@1,guard,x,x/mine")
    assert pinned(db, 1, asked).detectors == ["guard", "x/mine@1", "x", "x/mine@2"]
    plain = JobOptions.of(detectors="x,guard")
    assert pinned(db, 1, plain) is plain
    with pytest.raises(RejectedError, match="x/mine@2 is named twice"):
        pinned(db, 1, JobOptions.of(detectors="x/mine@2,x/mine"))
    with pytest.raises(NotFoundError, match=r"no prompt policy 'yours'.*There are: mine@2, mine@1"):
        pinned(db, 1, JobOptions.of(detectors="x/yours"))


def test_all_places_of_a_detector_are_neighbours() -> None:
    assert detectors_of(["x/a", "y", "guard", "x/b@2", "x"]) == ("guard", "x/a", "x/b@2", "x", "y")
    for wrong in (["x/"], ["x/a@0"], ["x/a@"], ["x/a/b"], ["guard/a"], ["x/a", "x/a"], ["x@1"]):
        with pytest.raises(ValueError, match=r"name|policy|twice"):
            detectors_of(wrong)


def test_rules_read_the_newest_version_where_they_name_none() -> None:
    assert keys_of(["x", "x/a@9", "x/a@10", "x/b@1"]) == [["x"], ["x/a@9"], ["x/a@10", "x/a"], ["x/b@1", "x/b"]]


@pytest.mark.parametrize(("takes", "refused"), [("none", "x/mine@1"), ("required", "x"), ("optional", None), (None, None)], ids=str)
def test_what_does_not_fit_a_detector_is_refused_at_submit_if_it_is_known(
    db: Database, takes: str | None, refused: str | None
) -> None:
    models.register(db, Model("f", "1", "p", detector="x", labels=("a", "b"), neutral="a", prompt_policy=takes))
    for entry in ("x", "x/mine@1"):
        if entry == refused:
            with pytest.raises(RejectedError, match="policy"):
                models.require_detectors(db, [entry])
        else:
            models.require_detectors(db, [entry])


def test_a_model_of_an_older_release_says_what_it_takes_once_it_serves_again(db: Database) -> None:
    made = [
        Model("f", "1", "p", detector="x", labels=("a", "b"), neutral="a", prompt_policy=takes) for takes in (None, "none", None)
    ]
    assert len({models.register(db, one) for one in made}) == 1
    with pytest.raises(RejectedError):
        models.require_detectors(db, ["x/mine@1"])


def test_every_face_tells_the_policies_of_one_detector_apart(db: Database, keyring: Keyring) -> None:
    for text in ("a", "b"):
        prompt_policies.add(db, 1, "mine", text)
    version, _ = policies.add(db, 1, read(POLICY))
    asked: dict[str, Any] = {"name": "t", "brings_workers": True}
    options = pinned(db, 1, JobOptions.of(detectors="guard,finder,finder/mine@1,finder/mine"))
    job = submit(db, keyring, 4, shard_texts=4, new=new_job(**asked, detectors=options.detectors))
    said = [[CLEAR, CLEAR, SHORT, CLEAR], [CLEAR, FOUND, CLEAR, CLEAR], [FOUND, FOUND, CLEAR, CLEAR]]
    found = [detected(db, one, place=place) for place, one in enumerate(said, 1)]
    policies.activate(db, version)
    rows = [Row(f"id{i}", SAFE) for i in range(4)]
    assert completion.finish(db, took(db, job, 0), rows, model_id=models.register(db, MODEL), detected=found)
    done = views.get(db, job.public_id)
    assert done.detected == {
        "finder": {"clear": 3, "too_short": 1}, "finder/mine@1": {"clear": 3, "found": 1}, "finder/mine@2": {"clear": 2, "found": 2}
    }  # fmt: skip
    shown = list(verdicts.export(db, done))
    for row, labels in zip(shown, zip(*said, strict=True), strict=True):
        assert list(row["detections"]) == ["finder", "finder/mine@1", "finder/mine@2"]
        assert [one["label"] for one in row["detections"].values()] == [one.label for one in labels]
    expected = ["flag", "flag", "review", "allow"]
    assert [row["action"] for row in shown] == expected
    with db.begin() as connection:
        assert connection.scalars("select detections from verdicts order by seq") == [row["detections"] for row in shown]
        assert connection.scalar("select count(*) from detections where detector = 'finder/mine@2' and label = 'found'") == 2
    again, _ = policies.add(db, 1, read(POLICY.replace("action: flag", "action: block").replace("name: strict", "name: again")))
    redecide.redecide(db, again, Scope(1, done.id))
    policies.activate(db, again)
    assert [row["action"] for row in verdicts.export(db, done)] == ["block" if one == "flag" else one for one in expected]

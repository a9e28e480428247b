"""The model of a detector is changed, tried and compared while it works, as the guard's is."""

import json
import pathlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import DeploymentState
from guardfleet.settings import Settings
from guardfleet.store import keys, verdicts
from guardfleet.store.deployments import comparisons, deployments
from guardfleet.store.jobs.views import JobView
from tests.services.commands import said
from tests.services.deploying import beside, compared, deployed, reached, ready
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished
from tests.services.patience import patience
from tests.services.served import served
from tests.services.stored import scalar

DISPATCHER, GUARD, FINDER = ("dispatcher",), ("worker",), ("worker", "--detector", "finder")
OTHER = ("worker", "--detector", "other")
BRINGS = SubmitOptions(brings_workers=True)
BOTH = JobOptions.of(detectors="guard,finder")


def revisions(producer: DirectClient, job: JobView) -> Counter[tuple[str, str]]:
    """How many texts had their verdict and their detection from which revisions."""
    return Counter((row["revision"], row["detections"]["finder"]["revision"]) for row in verdicts.export(producer.db, job))


@contextmanager
def detecting(producer: DirectClient, settings: Settings) -> Iterator[list[tuple[int, Any]]]:
    """Somebody asks the API for detections, again and again: the status and the detection of each answer, as they come."""
    ended, answers = threading.Event(), list[tuple[int, Any]]()
    key = keys.create(producer.db, producer.keyring, name="k")
    with (
        served(settings) as url,
        httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=patience(60)) as client,
    ):

        def ask() -> None:
            while not ended.is_set():
                text = f"now {len(answers)}"
                answer = client.post("/v1/detect", json={"input": text, "detectors": ["finder"]})
                found = answer.json()["results"][0]["detections"]["finder"] if answer.status_code == 200 else None
                answers.append((answer.status_code, found))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield answers
        finally:
            ended.set()
            thread.join()


@with_broker("redis")
def test_a_detector_changes_in_the_middle_of_a_job_of_guard_and_detector_and_nobody_who_waits_notices(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=30.0)
    with fleet(slow, tmp_path, DISPATCHER, GUARD, FINDER, FINDER):
        ready(producer, 1)
        ready(producer, 2, "finder")
        job = producer.submit([f"text {i}" for i in range(10_000)], BOTH).job
        with detecting(producer, settings) as answers:
            until(lambda: scalar(producer.db, "select count(*) from detection") >= 500, what="500 detections")
            until(lambda: answers, what="an answer before the change")
            reached(producer, deployed(producer, "2", detector="finder"), DeploymentState.ACTIVE)
            n_before = len(answers)
            until(lambda: len(answers) > n_before + 2, what="answers after the change")
        done = finished(producer, job)
        later = finished(producer, producer.submit(["x"], BOTH).job)
    assert_exactly_once(producer, done)
    assert done.error == 0
    assert done.detected == {"finder": {"clear": 10_000}}
    assert revisions(producer, done).keys() == {("1", "1"), ("1", "2")}
    assert revisions(producer, later).keys() == {("1", "2")}
    assert {status for status, _ in answers} == {200}
    assert {found["label"] for _, found in answers} == {"clear"}
    assert (answers[0][1]["revision"], answers[-1][1]["revision"]) == ("1", "2")
    mixed = f"""select count(*) from (select seq / 50 from detection where job_id = {done.id} group by seq / 50
                having count(distinct model_id) > 1) x"""
    assert scalar(producer.db, mixed) == 0  # a shard is judged by one model, whatever happens meanwhile


@with_broker("redis")
def test_a_canary_of_a_detector_that_is_not_the_last_is_halted_and_says_which_labels_changed(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    rows = [{"text": f"text {i} [[rev:2]]" if i % 5 == 0 else f"text {i}", "metadata": {"lang": "de"}} for i in range(1000)]
    with fleet(settings, tmp_path, DISPATCHER, FINDER, OTHER):
        ready(producer, 1, "finder")
        made = deployed(
            producer, "2", detector="finder", state=DeploymentState.CANARY, share=0.5, canary_texts=5000, min_agreement=0.98
        )
        beside(producer, made, "finder")
        job = finished(producer, producer.submit(rows, JobOptions.of(detectors="finder,other"), BRINGS).job)
        halted = reached(producer, made, DeploymentState.HALTED)
        beside(producer, None, "finder")
        one = finished(producer, producer.submit(["x [[rev:2]]"], JobOptions.of(detectors="finder")).job)
    assert "it agrees on 80" in (halted.reason or "")
    assert_exactly_once(producer, job)
    assert one.detected == {"finder": {"clear": 1}}
    shown = said(settings, "models", "show", made.label)
    assert "clear -> found" in shown.stdout
    assert "label found: 100.00%" in shown.stdout
    assert "language de: 20" in shown.stdout
    assert f"{made.label}  finder  " in said(settings, "models", "list").stdout
    (told,) = map(json.loads, said(settings, "models", "show", "--detector", "finder", "--json").stdout.splitlines())
    assert told["labels"]["clear -> found"] == told["label"]["found"]["changed"] == halted.compared - halted.agreed


@with_broker("redis")
def test_a_shadow_of_a_detector_counts_labels_and_nobody_is_told(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    rows = [f"text {i} [[rev:2]]" if i % 10 == 0 else f"text {i}" for i in range(2000)]
    with fleet(settings, tmp_path, DISPATCHER, GUARD, FINDER):
        ready(producer, 1, "finder")
        done = said(settings, "models", "shadow", "demo", "--revision", "2", "--detector", "finder", "--share", "20%")
        made = deployments.get(producer.db, done.stdout.strip(), detector="finder")
        beside(producer, made, "finder")
        job = finished(producer, producer.submit(rows, BOTH, BRINGS).job)
        found = compared(producer, made, 200)
        assert said(settings, "models", "promote", "finder").returncode == 0
        reached(producer, made, DeploymentState.ACTIVE)
    assert job.detected == {"finder": {"clear": 2000}}
    assert revisions(producer, job) == {("1", "1"): 2000}
    assert found.compared + found.skipped < 600  # of 2,000, a fifth
    assert 0.8 < found.agreed / found.compared < 0.97
    cells = comparisons.cells(producer.db, made.id)
    assert {(cell.subject, cell.live, cell.candidate) for cell in cells} == {
        ("label", "clear", "clear"), ("label", "clear", "found"),
    }  # fmt: skip


@with_broker("redis")
def test_golden_texts_of_a_detector_are_read_with_its_labels_and_refuse_a_model_that_gives_others(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    rows = [{"text": "fine", "kind": "clear"}, {"text": "a [[found]]", "kind": "found"}, {"text": "b [[rev:3]]", "kind": True}]
    golden, wrong = tmp_path / "golden.jsonl", tmp_path / "wrong.jsonl"
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wrong.write_text(json.dumps({"text": "x", "kind": "generated"}) + "\n")
    asked = ("--detector", "finder", "--label-field", "kind", "--golden-accuracy", "1")

    def deploy(revision: str, file: pathlib.Path) -> Any:
        return said(settings, "models", "deploy", "demo", "--revision", revision, "--golden", str(file), *asked)

    unknown = deploy("2", golden)
    assert (unknown.returncode, "no worker has served a detector 'finder' yet" in unknown.stderr) == (2, True)
    with fleet(settings, tmp_path, FINDER):
        ready(producer, 1, "finder")
        refused = deploy("2", wrong)
        assert (refused.returncode, "labels that finder does not have: it has clear, found" in refused.stderr) == (2, True)
        first, second = deploy("2", golden), None
        halted = reached(producer, deployments.get(producer.db, first.stdout.strip(), detector="finder"), DeploymentState.HALTED)
        assert "2 of 3 golden texts" in (halted.reason or "")
        second = deploy("3", golden)
        taken = reached(producer, deployments.get(producer.db, second.stdout.strip(), detector="finder"), DeploymentState.ACTIVE)
        assert (taken.golden_texts, taken.golden_right) == (3, 3)
        assert said(settings, "models", "rollback", "finder").returncode == 0

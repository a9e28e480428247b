"""The model of a fleet is changed while it works: real processes, bulk and interactive work, and rows that say who judged."""

import pathlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import DeploymentState
from guardfleet.settings import Settings
from guardfleet.store import verdicts
from guardfleet.store.deployments import comparisons, deployments, seats
from guardfleet.store.jobs.views import JobView
from tests.services.commands import said
from tests.services.deploying import beside, compared, deployed, reached, ready
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished, progressed

DEMO = pathlib.Path(__file__).parents[2] / "models" / "demo"
DISPATCHER, WORKER = ("dispatcher",), ("worker",)


def revisions(producer: DirectClient, job: JobView) -> set[str]:
    return {row["revision"] for row in verdicts.export(producer.db, job)}


@contextmanager
def asking(producer: DirectClient) -> Iterator[list[JobView]]:
    """Somebody asks and waits for the answer, again and again; the jobs are complete when the block is left."""
    ended, jobs = threading.Event(), list[JobView]()

    def ask() -> None:
        while not ended.is_set():
            jobs.append(finished(producer, producer.submit([f"now {len(jobs)}"], JobOptions(interactive=True)).job))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield jobs
    finally:
        ended.set()
        thread.join()


@with_broker("rabbitmq")
def test_a_fleet_changes_to_another_revision_in_the_middle_of_a_job_and_nobody_who_waits_notices(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=30.0)
    with fleet(slow, tmp_path, DISPATCHER, WORKER, WORKER):
        ready(producer, 2)
        job = producer.submit([f"text {i}" for i in range(20_000)]).job
        with asking(producer) as asked:
            progressed(producer, job, 500)
            reached(producer, deployed(producer, "2"), DeploymentState.ACTIVE)
            n_before = len(asked)
            until(lambda: len(asked) > n_before + 2, what="answers after the change")
        done = finished(producer, job)
        later = finished(producer, producer.submit(["x"]).job)
    assert_exactly_once(producer, done)
    assert done.error == 0
    assert revisions(producer, done) == {"1", "2"}
    assert sorted(done.models) == ["instant@1", "instant@2"]
    assert {one.error for one in asked} == {0}
    assert revisions(producer, asked[0]) == {"1"}
    assert revisions(producer, asked[-1]) == revisions(producer, later) == {"2"}
    with producer.db.session() as connection:  # a shard is judged by one model, whatever happens meanwhile
        mixed = connection.scalar(
            f"""select count(*) from (select seq / 50 from verdict where job_id = {done.id} group by seq / 50
                having count(distinct model_id) > 1) x"""
        )
    assert mixed == 0


def one(producer: DirectClient, text: str, **options: object) -> dict[str, object]:
    """The verdict of one text, as a job of its own."""
    job = finished(producer, producer.submit([text], JobOptions.of(**{"use_cache": False, **options})).job)
    (row,) = verdicts.export(producer.db, job)
    return row


@with_broker("redis")
def test_a_model_that_cannot_be_opened_is_not_taken_and_the_old_one_stays(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, WORKER) as (_, worker):
        ready(producer, 1)
        halted = reached(producer, deployed(producer, "broken"), DeploymentState.HALTED)
        assert "is there to fail" in (halted.reason or "")
        assert worker.says("swap_failed")
        assert one(producer, "x")["revision"] == "1"


@with_broker("redis")
def test_golden_texts_that_are_judged_wrongly_refuse_a_model_before_it_takes_work(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    golden = [["fine", False], ["[[rev:3]]", True], ["[[unsafe]]", True], ["", False]]
    with fleet(settings, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        asked = {"golden": golden, "golden_accuracy": 1.0}
        halted = reached(producer, deployed(producer, "2", **asked), DeploymentState.HALTED)
        assert "3 of 4 golden texts" in (halted.reason or "")
        assert one(producer, "x")["revision"] == "1"
        taken = reached(producer, deployed(producer, "3", **asked), DeploymentState.ACTIVE)
        assert (taken.golden_texts, taken.golden_right) == (4, 4)
        assert one(producer, "x")["revision"] == "3"
    with producer.db.session() as connection:  # the texts are encrypted, and those of a deployment that ended are gone
        kept = connection.execute("select golden from deployment order by id").fetchall()
    assert kept[0].golden is None
    assert b"[[unsafe]]" not in bytes(kept[1].golden)


@with_broker("redis")
def test_one_command_goes_back_and_a_worker_that_restarts_serves_what_is_deployed(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        reached(producer, deployed(producer, "2"), DeploymentState.ACTIVE)
        second = reached(producer, deployed(producer, "3"), DeploymentState.ACTIVE)
        assert one(producer, "x")["revision"] == "3"
    (tmp_path / "again").mkdir()
    with fleet(settings, tmp_path / "again", DISPATCHER, WORKER):
        assert one(producer, "x")["revision"] == "3"
        done = said(settings, "models", "rollback")
        assert (done.returncode, done.stdout.strip()) == (0, second.label)
        until(lambda: one(producer, "x")["revision"] == "2", what="the revision from before")
        assert said(settings, "models", "rollback").returncode == 0
        until(lambda: one(producer, "x")["revision"] == "1", what="the model of the settings")
        refused = said(settings, "models", "rollback")
        assert (refused.returncode, "nothing to roll back" in refused.stderr) == (2, True)


@with_broker("redis")
def test_a_canary_judges_its_share_and_is_rolled_out_once_it_has_agreed_for_long_enough(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        made = deployed(producer, "2", state=DeploymentState.CANARY, share=0.3, canary_texts=400, min_agreement=0.98)
        beside(producer, made)
        job = finished(producer, producer.submit([f"text {i}" for i in range(1000)]).job)
        assert revisions(producer, job) == {"1", "2"}
        for _ in range(5):  # until 400 texts were compared
            finished(producer, producer.submit([f"more {i}" for i in range(1000)], JobOptions(use_cache=False)).job)
        active = reached(producer, made, DeploymentState.ACTIVE)
        assert active.compared >= 400
        assert active.agreed == active.compared
        assert one(producer, "x")["revision"] == "2"


@with_broker("redis")
def test_a_canary_that_disagrees_is_halted_and_says_where(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    rows = [{"text": f"text {i} [[rev:2]]" if i % 5 == 0 else f"text {i}", "metadata": {"lang": "de"}} for i in range(1000)]
    with fleet(settings, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        made = deployed(producer, "2", state=DeploymentState.CANARY, share=0.5, canary_texts=5000, min_agreement=0.98)
        beside(producer, made)
        finished(producer, producer.submit(rows).job)
        halted = reached(producer, made, DeploymentState.HALTED)
        beside(producer, None)
        assert one(producer, "x [[rev:2]]")["severity"] == "safe"
    assert "it agrees on 80" in (halted.reason or "")
    assert 50 <= halted.compared < 1000
    cells = comparisons.cells(producer.db, made.id)
    assert {cell.language for cell in cells} == {"de"}
    assert sum(n for cell, n in cells.items() if (cell.subject, cell.live, cell.candidate) == ("Violent", "not", "named")) == (
        halted.compared - halted.agreed
    )
    shown = said(settings, "models", "show", made.label)
    assert "safe -> unsafe" in shown.stdout
    assert "language de: 20" in shown.stdout


@with_broker("redis")
def test_a_shadow_judges_a_share_again_and_nobody_is_told(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    rows = [f"text {i} [[rev:2]]" if i % 10 == 0 else f"text {i}" for i in range(2000)]
    with fleet(settings, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        done = said(settings, "models", "shadow", "demo", "--revision", "2", "--share", "20%")
        made = deployments.get(producer.db, done.stdout.strip(), detector="guard")
        beside(producer, made)
        job = finished(producer, producer.submit(rows).job)
        found = compared(producer, made, 200)
        assert said(settings, "models", "promote").returncode == 0
        reached(producer, made, DeploymentState.ACTIVE)
    assert revisions(producer, job) == {"1"}
    assert job.unsafe == 0
    assert found.compared + found.skipped < 600  # of 2,000, a fifth
    assert 0.8 < found.agreed / found.compared < 0.97
    assert {(live, candidate) for _, _, live, candidate in comparisons.places(producer.db, made.id, limit=10)} == {
        ("safe", "unsafe")
    }


@with_broker("redis")
def test_where_only_one_model_fits_workers_change_one_after_the_other_and_a_single_one_waits(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=100.0)
    with fleet(slow, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        made = deployed(producer, "2", alone=True)
        until(lambda: "no other worker serves" in (seats.there(producer.db, "guard")[0].reason or ""), what="the reason")
        assert one(producer, "x")["revision"] == "1"
        deployments.stop(producer.db, made)
        (tmp_path / "more").mkdir()
        with fleet(slow, tmp_path / "more", WORKER):
            ready(producer, 2)
            job = producer.submit([f"text {i}" for i in range(10_000)]).job
            with asking(producer) as asked:
                progressed(producer, job, 500)
                reached(producer, deployed(producer, "3", alone=True), DeploymentState.ACTIVE)
            done = finished(producer, job)
    assert_exactly_once(producer, done)
    assert done.error == 0
    assert revisions(producer, done) == {"1", "3"}
    assert {one.error for one in asked} == {0}


@with_broker("rabbitmq")
def test_a_model_of_another_name_takes_the_jobs_that_name_it_and_those_that_name_none(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    with fleet(settings, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        assert one(producer, "x", model="instant")["model"] == "instant"
        reached(producer, deployed(producer, None, model="large"), DeploymentState.ACTIVE)
        assert one(producer, "x", model="large")["model"] == "large"
        assert one(producer, "x")["model"] == "large"
        waiting = producer.submit(["y"], JobOptions(model="instant")).job
        assert one(producer, "z", interactive=True)["model"] == "large"
        assert producer.status(waiting.label).done == 0  # no worker has that model any more
        said(settings, "models", "rollback")
        assert finished(producer, waiting).done == 1


@with_broker("redis")
def test_a_damaged_model_folder_is_refused_by_a_real_worker_and_a_whole_one_is_taken(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    damaged, whole = tmp_path / "damaged", tmp_path / "whole"
    for folder in (damaged, whole):
        shutil.copytree(DEMO, folder)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    (whole / "config.json").write_text((whole / "config.json").read_text() + "\n")  # another revision that judges alike
    real = settings.but(engine="model", threads=1)
    with fleet(real, tmp_path, DISPATCHER, WORKER):
        ready(producer, 1)
        before = one(producer, "hello")
        halted = reached(producer, deployed(producer, None, model=str(damaged)), DeploymentState.HALTED)
        assert "cannot be loaded" in (halted.reason or "")
        assert one(producer, "hello")["revision"] == before["revision"]
        active = reached(producer, deployed(producer, None, model=str(whole)), DeploymentState.ACTIVE)
        after = one(producer, "hello")
    assert (before["model"], after["model"]) == ("guardfleet-demo", "whole")
    assert after["revision"] == active.found != before["revision"]
    assert after["severity"] == before["severity"]


def test_a_detector_that_nobody_has_served_gets_no_model_and_a_stop_says_when(settings: Settings, producer: DirectClient) -> None:
    for verb in ("deploy", "shadow"):
        refused = said(settings, "models", verb, "demo", "--detector", "nosuch")
        assert refused.returncode != 0
        assert "no worker has served a detector 'nosuch' yet" in refused.stderr
    assert deployments.every(producer.db) == []
    assert said(settings, "models", "deploy", "demo").returncode == 0
    done = said(settings, "models", "stop")
    assert (done.returncode, "within a few seconds" in done.stderr) == (0, True)

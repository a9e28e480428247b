"""Results of the texts to which a detector gave a label: the same ones in pages and in files, whatever is stored."""

import json
import pathlib
from collections.abc import Sequence

import pytest
from rich.console import Console
from typer.testing import CliRunner

from guardfleet.cli import progress
from guardfleet.cli.app import app
from guardfleet.domain.detection import Detection
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import detections, verdicts
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.filters import Filter, Labelled
from guardfleet.verdicts.page import Cursor, of_labels
from tests.services.detected import BROKEN, CLEAR, FOUND, SHORT, finished, without_guard
from tests.services.fixtures import SECRET_KEY
from tests.services.stored import submit

ENDS = [FOUND, CLEAR, SHORT, BROKEN] * 5


def paged(db: Database, job: JobView, labels: Sequence[str], **more: str) -> list[int]:
    found, cursor = [], Cursor()
    while True:
        wanted = Filter.of(labelled=Labelled("finder", labels), **more)  # type: ignore[arg-type]
        page = verdicts.page(db, job, cursor, limit=3, wanted=wanted)
        found += [row.seq for row in page.rows]
        cursor = page.reached
        if not page.has_more:
            return found


def exported(db: Database, job: JobView, labels: Sequence[str]) -> list[int]:
    wanted = detections.resolved(db, job.detectors, Labelled("finder", labels))
    return [row["seq"] for page in of_labels(verdicts.in_order(db, job), wanted) for row in page.fields()]


def places(*wanted: Detection) -> list[int]:
    return [i for i, said in enumerate(ENDS) if said in wanted]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["found"], [FOUND]),
        (["clear", "found"], [CLEAR, FOUND]),
        (["too_short"], [SHORT]),
        (["error"], [BROKEN]),
        (["error", "found"], [BROKEN, FOUND]),
        (["unlabelled"], []),
    ],
)
def test_pages_and_files_have_the_texts_with_these_labels_and_no_other(
    db: Database, keyring: Keyring, labels: list[str], wanted: list[Detection]
) -> None:
    job = finished(db, keyring, ENDS)
    assert paged(db, job, labels) == exported(db, job, labels) == places(*wanted)
    assert paged(db, job, labels, status="failed") == []


def test_the_command_writes_them(
    database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, out = finished(db, keyring, ENDS), tmp_path / "out.jsonl"
    monkeypatch.setenv("GUARDFLEET_DATABASE_URL", database_url)
    monkeypatch.setenv("GUARDFLEET_SECRET_KEY", SECRET_KEY)
    asked = ["results", job.label, "-o", str(out), "--detector", "finder", "--label", "found", "--label", "error"]
    ran = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert [int(json.loads(line)["id"][2:]) for line in out.read_text().splitlines()] == places(FOUND, BROKEN)


def test_a_summary_says_who_gave_how_many_texts_no_answer(db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    guarded, alone, well = finished(db, keyring, ENDS), without_guard(db, keyring, ENDS), without_guard(db, keyring, [CLEAR])
    for job, said in (
        (guarded, "20 texts, 0 without a model run (cache, duplicates, empty, lists), 5 failed with finder, 0 lines refused"),
        (alone, "20 texts, 5 failed with finder, 0 lines refused"),
        (well, "1 texts, 0 failed, 0 lines refused"),
    ):
        with (tmp_path / "said").open("w") as file:
            progress.summary(job, {}, seconds=None, to=Console(file=file, width=200))
        assert said in (tmp_path / "said").read_text()


def test_what_only_reads_as_an_error_is_one_and_has_no_label(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [FOUND, CLEAR])
    with db.begin() as connection:
        connection.execute("update detection set scores = array[0.9, 0.9]::real[] where seq = 0")
    assert paged(db, job, ["found"]) == exported(db, job, ["found"]) == []
    assert paged(db, job, ["error"]) == exported(db, job, ["error"]) == [0]


def test_a_detector_that_was_not_asked_and_a_label_that_it_never_had_are_refused(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [FOUND])
    for wanted, said in (
        (Labelled("other", ["found"]), r"did not ask a detector 'other': it asked finder\."),
        (Labelled("guard", ["safe"]), r"did not ask a detector 'guard': it asked finder\."),
        (Labelled("finder", ["fund"]), r"finder has no label 'fund'; it has: clear, found, unlabelled, too_short, error\."),
    ):
        with pytest.raises(RejectedError, match=said):
            detections.resolved(db, job.detectors, wanted)
    guards = submit(db, keyring, 1)
    with pytest.raises(RejectedError, match="it asked none but the guard"):
        detections.resolved(db, guards.detectors, Labelled("finder", ["found"]))
    for detector, labels, param in ((None, ["found"], "detector"), ("finder", [], "label"), ("finder", None, "label")):
        with pytest.raises(RejectedError) as error:
            Labelled.of(detector, labels)
        assert error.value.param == param


def test_a_policy_without_its_version_is_the_newest_that_the_job_asked(db: Database) -> None:
    asked = ["guard", "custom/a@1", "custom/a@2"]
    for named, entry in (("custom/a", "custom/a@2"), ("custom/a@1", "custom/a@1")):
        found = detections.resolved(db, asked, Labelled(named, ["error"]))
        assert found == Labelled(entry, ["error"])
        assert detections.values_of(asked, found)["place"] == asked.index(entry)

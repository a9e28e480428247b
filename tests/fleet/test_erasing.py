"""`guardfleet erase` and `guardfleet hold`: what is asked, what is printed, the exit status; no value that was given is shown."""

import io
import json
import pathlib

import pytest

from guardfleet.cli.commands import erasing
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import installation
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from tests.services.commands import said
from tests.services.fixtures import SECRET_KEY
from tests.services.poison import change
from tests.services.remains import where
from tests.services.stored import scalar
from tests.store.test_erasure import ID, MINE, NO_TEXT, SUBJECT, judged, other_tenant

SUBJECTS = ("--subject", f"user={SUBJECT}")


@pytest.fixture
def settings(database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Settings:
    installation.require_key(db, keyring)
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)


def test_a_receipt_is_printed_as_counts_and_nothing_that_was_given(settings: Settings, db: Database, keyring: Keyring) -> None:
    judged(db, keyring)
    dry = said(settings, "erase", *SUBJECTS, "--dry-run")
    assert (dry.returncode, dry.stdout, "2 texts and 0 refused lines in 1 jobs, 0 of them held; 0 uploaded" in dry.stderr) == (0, "", True)
    assert all(where(db, keyring, MINE).values())
    done = said(settings, "erase", *SUBJECTS, "--yes")
    assert (done.returncode, done.stdout.startswith("erasure_")) == (0, True)
    assert [line.strip() for line in done.stderr.splitlines()] == ["2 texts", "2 of them with a verdict", "2 shards written again"]
    assert not any(where(db, keyring, MINE).values())
    listed = said(settings, "erasures")
    assert done.stdout.strip() in listed.stdout
    receipt = json.loads(said(settings, "erasures", "--json").stdout)
    assert (receipt["id"], receipt["counts"]["texts"]) == (done.stdout.strip(), 2)
    assert not [word for word in MINE for shown in (dry, done, listed) if word in shown.stdout + shown.stderr]


def test_values_come_from_files_or_standard_input_too(
    settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(db, keyring)
    (ids := tmp_path / "ids").write_text(f"nobody\n{ID}\n\n")
    assert json.loads(said(settings, "erase", "--ids-from", str(ids), "--yes", "--json").stdout)["counts"]["texts"] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(f"user={SUBJECT}\n"))
    assert json.loads(said(settings, "erase", "--subjects-from", "-", "--yes", "--json").stdout)["counts"]["texts"] == 1


def test_nothing_is_erased_unless_somebody_says_so(
    settings: Settings, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(db, keyring)
    refused = said(settings, "erase", *SUBJECTS)
    assert (refused.returncode, "give --yes" in refused.stderr) == (2, True)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, status in (("", 2), ("n\n", 2), ("y\n", 0)):
        assert scalar(db, "select count(*) from erasure") == 0
        monkeypatch.setattr(erasing.sys, "stdin", Terminal(answer))
        assert said(settings, "erase", *SUBJECTS).returncode == status
    assert not any(where(db, keyring, MINE).values())


def test_the_status_says_what_is_left(settings: Settings, db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    held = said(settings, "hold", "add", job.label, "--reason", "case-17").stdout.strip()
    done = said(settings, "erase", *SUBJECTS, "--yes")
    assert (done.returncode, "2 left alone under a legal hold" in done.stderr) == (1, True)
    assert said(settings, "erase", *SUBJECTS, "--dry-run").returncode == 1
    assert "case-17" in said(settings, "hold", "list").stdout
    assert said(settings, "hold", "release", held).returncode == 0
    change(db, f"update job set state = 0 where id = {job.id}")
    done = said(settings, "erase", *SUBJECTS, "--yes")
    assert (done.returncode, "run it again" in done.stderr) == (3, True)
    change(db, f"update job set state = 2 where id = {job.id}")
    assert said(settings, "erase", *SUBJECTS, "--yes", "--rewrite").returncode == 0
    assert said(settings, "erase", "--job", job.label, "--yes").returncode == 0
    gone = said(settings, "erase", "--job", job.label, "--yes")
    assert (gone.returncode, "there is no job" in gone.stderr) == (2, True)


def test_another_tenant_is_named_and_nothing_else_is_touched(settings: Settings, db: Database, keyring: Keyring) -> None:
    theirs = other_tenant(db, keyring)
    mine, foreign = judged(db, keyring), judged(db, keyring, tenant_id=theirs)
    assert said(settings, "erase", *SUBJECTS, "--yes", "--tenant", "other").returncode == 0
    assert views.get(db, mine.public_id).erased == 0
    assert views.get(db, foreign.public_id, tenant_id=theirs).erased == 2
    assert views.get(db, mine.public_id).done == NO_TEXT
    assert said(settings, "erasures").stdout == ""
    assert said(settings, "erase", *SUBJECTS, "--yes", "--tenant", "nobody").returncode == 2


def test_a_number_on_the_command_line_is_the_text_and_the_number(settings: Settings, db: Database, keyring: Keyring) -> None:
    judged(db, keyring)  # whose texts have n = 1 and n = 4, as numbers
    change(db, 'update verdict set metadata = \'{"n": "4"}\' where seq = 0')
    done = said(settings, "erase", "--subject", "n=4", "--yes", "--json")
    assert json.loads(done.stdout)["counts"]["texts"] == 2
    for odd in ("n=NaN", "n=1e999", f"n={'9' * 5000}", "n=[1]"):  # texts that no row has
        assert json.loads(said(settings, "erase", "--subject", odd, "--yes", "--json").stdout)["counts"]["texts"] == 0


@pytest.mark.parametrize("given", [["--subject", "x"], ["--subject", "=x"], ["--id", "line:1"], []])
def test_what_means_nothing_is_a_usage_error(settings: Settings, given: list[str]) -> None:
    assert said(settings, "erase", *given, "--yes").returncode == 2

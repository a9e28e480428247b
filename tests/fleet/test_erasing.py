"""`guardfleet erase` and `guardfleet hold`: what is asked, what is printed, the exit status; no value that was given is shown."""

import io
import json
import pathlib
from typing import Any

import pytest

from guardfleet.cli.commands import erasing
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import installation
from guardfleet.store.erasure import receipts
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
    assert (dry.returncode, dry.stdout) == (0, "")
    assert "2 texts and 0 refused lines in 1 jobs, 0 of them held; 0 uploaded files; 0 shards" in dry.stderr
    as_json = json.loads(said(settings, "erase", *SUBJECTS, "--dry-run", "--json").stdout)
    assert as_json == {"texts": 2, "refusals": 0, "held": 0, "jobs": 1, "files": 0, "unread": 0}
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
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"user={SUBJECT}\n".encode())))
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


EMPTY = ["", "\n", "\r\n\n", "\ufeff"]


@pytest.mark.parametrize("option", ["--ids-from", "--subjects-from"])
@pytest.mark.parametrize("content", EMPTY)
def test_a_file_that_names_nobody_is_no_whole_job(
    settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path, option: str, content: str
) -> None:
    job = judged(db, keyring)
    (empty := tmp_path / "f").write_text(content)
    erase = ("erase", "--yes")
    for args in ((*erase, "--job", job.label), (*erase, "--id", ID), ("hold", "add", job.label, "--reason", "r")):
        done = said(settings, *args, option, str(empty))
        assert (done.returncode, "names nobody" in done.stderr) == (2, True), args
    assert all(where(db, keyring, MINE).values())
    assert scalar(db, "select count(*) from legal_hold") == 0


def test_a_file_of_another_system_misses_nobody(settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    """A mark at its begin, lines that end as they do on Windows, and ids with what only some take for the end of a line."""
    judged(db, keyring)
    odd = ["a\u2028b", "c\x85d", "e\x0bf", "g\x1ch", "\\u0000"]
    for seq, row_id in enumerate(odd, 2):
        with db.begin() as connection:
            connection.execute("update verdict set id = %(id)s where seq = %(seq)s", {"id": row_id, "seq": seq})
    (listed := tmp_path / "f").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([ID, *odd]).encode())
    assert json.loads(said(settings, "erase", "--ids-from", str(listed), "--yes", "--json").stdout)["counts"]["texts"] == 6


@pytest.mark.parametrize(
    ("option", "content", "why"),
    [
        ("--ids-from", b"a\nb \n", "line 2 begins or ends with a blank"),
        ("--ids-from", b"a\n\xc2\xa0b\n", "line 2 begins or ends with a blank"),
        ("--ids-from", b"a\n\xef\xbb\xbfb\n", "line 2 begins or ends with a blank"),
        ("--ids-from", b"a\n\xffb\n", "line 2 is not UTF-8"),
        ("--ids-from", "a\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("--ids-from", b"a\n\nb\0\n", "line 3: "),
        ("--ids-from", b"a\nline:7\n", "line 2: "),
        ("--subjects-from", b"k=v\nk\n", "line 2: "),
        ("--subjects-from", b"k=v\nk= v\n", "line 2: the key or the value begins"),
        ("--subjects-from", b"k=v\nk =v\n", "line 2: the key or the value begins"),
        ("--subjects-from", b"k=v\nk=v\xff\n", "line 2 is not UTF-8"),
    ],
)
def test_a_line_that_would_miss_somebody_is_refused_and_named(
    settings: Settings, tmp_path: pathlib.Path, option: str, content: bytes, why: str
) -> None:
    (given := tmp_path / "f").write_bytes(content)
    for args in (("erase", "--yes"), ("hold", "add", "--reason", "r")):
        done = said(settings, *args, option, str(given))
        assert (done.returncode, f"{given}, {why}" in done.stderr) == (2, True), done.stderr


def test_an_id_with_blanks_can_be_given_as_an_option(settings: Settings, db: Database, keyring: Keyring) -> None:
    judged(db, keyring)
    change(db, "update verdict set id = ' x ' where seq = 0")
    assert json.loads(said(settings, "erase", "--id", " x ", "--yes", "--json").stdout)["counts"]["texts"] == 1


def test_fifty_thousand_ids_are_erased_in_pieces(
    settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    judged(db, keyring)
    change(db, f"insert into rejection values (1, 99, 'x', 'y', '{ID}')")
    names = [ID, *(f"nobody-{n}" for n in range(49_998)), f"{ID}-4"]
    (listed := tmp_path / "f").write_text("\n".join(names))
    given = ("--ids-from", str(listed), "--subject", f"user={SUBJECT}", "--json")
    counts = json.loads(said(settings, "erase", *given, "--dry-run").stdout)
    assert (counts["texts"], counts["refusals"], counts["jobs"]) == (2, 1, 1)  # each once, in whatever pieces it is named
    done = said(settings, "erase", *given, "--yes")
    made = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(made), sum(one["counts"]["texts"] for one in made)) == (0, 51, 2)
    assert not any(where(db, keyring, MINE).values())
    refused = said(settings, "hold", "add", "--reason", "r", *given[:2])
    assert (refused.returncode, "at most 1,000" in refused.stderr) == (2, True)


def test_what_goes_away_by_itself_is_to_be_run_again(
    settings: Settings, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(db, keyring)
    reach = receipts.reach

    def second(*args: Any, **kwargs: Any) -> None:
        reach(*args, **kwargs)
        reach(*args, **kwargs)  # as another process has done

    monkeypatch.setattr(receipts, "reach", second)
    done = said(settings, "erase", *SUBJECTS, "--yes")
    assert (done.returncode, "at work already" in done.stderr) == (3, True)


@pytest.mark.parametrize("given", [["--subject", "x"], ["--subject", "=x"], ["--id", "line:1"], []])
def test_what_means_nothing_is_a_usage_error(settings: Settings, given: list[str]) -> None:
    assert said(settings, "erase", *given, "--yes").returncode == 2

"""Commit subjects have one form, enforced from the commit that added the checker on."""

import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import pytest

CHECKER = pathlib.Path(__file__).parents[2] / ".ci" / "commit_subjects.py"
fault = runpy.run_path(str(CHECKER))["fault"]


@pytest.mark.parametrize(
    "subject",
    [
        "fix(bench): say which texts cannot be used",
        "feat: add an option",
        "feat(store)!: drop a column",
        "test(api/openai): embed a batch",
        "fix: process what came",
        "fix: HEAD as GET",
        "docs: " + "a" * 66,
    ],
)
def test_a_subject_of_the_form_is_taken(subject: str) -> None:
    assert fault(subject) is None


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("docs: " + "a" * 67, "73 characters"),
        ("Say which texts cannot be used", "is not `type"),
        ("fixes: say it", "is not `type"),
        ("fix(): say it", "is not `type"),
        ("fix:say it", "is not `type"),
        ("fix: ", "is not `type"),
        ("fix: Say it", "capital"),
        ("fix: added a word", "not imperative"),
        ("fix: adds a word", "not imperative"),
        ("fix: adding a word", "not imperative"),
        ("fix: say it.", "full stop"),
    ],
)
def test_another_is_refused_with_the_reason(subject: str, said: str) -> None:
    assert said in fault(subject)


def git(folder: pathlib.Path, *args: str) -> str:
    who = {f"GIT_{role}_{what}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=clean | who).stdout


def checked(folder: pathlib.Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(folder / CHECKER.name), *args], capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    """A history in which one commit with a wrong subject is older than the checker, and one beside it."""
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "What was said before")
    git(tmp_path, "checkout", "-q", "-b", "beside")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "What was said beside")
    git(tmp_path, "checkout", "-q", "main")
    shutil.copy(CHECKER, tmp_path)
    git(tmp_path, "add", CHECKER.name)
    git(tmp_path, "commit", "-q", "-m", "Add the checker")
    git(tmp_path, "merge", "-q", "--no-ff", "-m", "Merge what was beside", "beside")
    return tmp_path


def test_commits_before_the_checker_are_not_judged(checkout: pathlib.Path) -> None:
    git(checkout, "commit", "-q", "--allow-empty", "-m", "fix: say it\n\nWhat the body says is free.")
    assert checked(checkout).returncode == 0


def test_commits_after_the_checker_are_judged(checkout: pathlib.Path) -> None:
    git(checkout, "commit", "-q", "--allow-empty", "-m", "Said after")
    found = checked(checkout)
    assert found.returncode == 1
    assert "Said after" in found.stderr
    assert "before" not in found.stderr
    assert "beside" not in found.stderr


def test_a_message_is_judged_before_it_is_a_commit(checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    message = tmp_path / "message"
    taken = ["fix: say it\n", "# help\nfix: say it\n", "fixup! fix: say it\n", "Merge branch 'a'\n"]
    for text in [*taken, "Said\n", ""]:
        message.write_text(text)
        assert checked(checkout, str(message)).returncode == (text not in taken), text

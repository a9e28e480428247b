"""Mistakes of new users: each gives one sentence with the fix, and the documented exit status."""

import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.settings import Settings
from guardfleet.store.postgres.database import Database
from tests.fleet.test_commands import data_dir
from tests.services.commands import command, said
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.patience import patience
from tests.services.stored import scalar

__all__ = ["data_dir"]


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "[[unsafe]]"}\n')
    return path


@pytest.mark.parametrize("name", ['it\'s "quoted", $HOME; `x` & 文字 %20', "long" * 30])
def test_a_data_folder_may_have_any_name(data_dir: pathlib.Path, source: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    data_dir.mkdir()
    done = command(data_dir / name, "scan", str(source), "-o", str(tmp_path / "out.csv"), engine="instant")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: pathlib.Path, source: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (pathlib.Path("/proc/gf"), tmp_path / "file", tmp_path / "file" / "below"):
        for args in (("scan", str(source)), ("up",), ("doctor",)):
            done = said(folder, *args, engine="instant")
            assert done.returncode == 2, done.stderr
            assert "set GUARDFLEET_DATA_DIR to a folder you own" in (done.stdout + done.stderr).replace("\n", " ")
            assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_a_data_folder_below_a_closed_one_names_the_closed_one(tmp_path: pathlib.Path, source: pathlib.Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = said(closed / "data", "scan", str(source), engine="instant")
    assert done.returncode == 2
    assert f"lies below {closed}, which user nobody cannot enter" in done.stderr or f"lies below {tmp_path.parent}" in done.stderr
    assert "chmod o+x" in done.stderr


@pytest.mark.parametrize(("args", "name"), [(("up",), "API__PORT"), (("doctor",), "API__PORT"), (("doctor",), "METRICS_PORT")])
def test_a_taken_port_is_named_with_its_setting(data_dir: pathlib.Path, args: tuple[str, ...], name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = said(data_dir, *args, engine="instant", **{name.lower(): port})
    assert done.returncode == 2, done.stderr
    assert f"port {port} at 127.0.0.1 is in use: set GUARDFLEET_{name} to another" in done.stdout + done.stderr
    assert not (data_dir / "postgres").exists(), "servers were started first"


def test_bare_guardfleet_shows_its_help_and_versions_are_told(data_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    bare = said(data_dir)
    assert bare.returncode == 2
    assert "Usage: " in bare.stdout
    assert bare.stderr == ""
    assert said(data_dir, "keys").stderr == ""
    assert command(data_dir, "--version").stdout == said(data_dir, "version").stdout
    assert said(data_dir, "--show-completion", "bash").returncode == 0
    assert "--install-completion" in said(data_dir, "--help").stdout


def rows_of(path: pathlib.Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_again_judges_anew_and_the_newest_verdicts_are_shown_then(
    data_dir: pathlib.Path, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out.jsonl"
    scan = ("scan", str(source), "-o", str(out))
    jobs = []
    for args in (scan, (*scan, "--again"), scan):
        done = command(data_dir, *args, engine="instant")
        assert done.returncode == 0, done.stderr
        assert [row["served_by"] for row in rows_of(out)] == ["model", "model"]
        jobs.append(next(word.strip(":()") for word in done.stderr.split() if word.strip("(").startswith("job_")))
    assert "nothing to do" in done.stderr
    assert jobs[1] != jobs[0]
    assert jobs[2] == jobs[1], "the newest"
    told = json.loads(said(data_dir, "status", jobs[2], "--json").stdout)
    assert (told["sure"], told["sample"]) == (0.9, 0.01), "as they were given"


def test_strict_counts_for_an_input_that_was_scanned_without(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "bad.jsonl"
    source.write_text('{"id": 1, "text": "x"}\n{oops\n')
    assert command(data_dir, "scan", str(source), "-o", str(tmp_path / "o.jsonl"), engine="instant").returncode == 1
    strict = command(data_dir, "scan", str(source), "-o", str(tmp_path / "o.jsonl"), "--strict", engine="instant")
    assert strict.returncode == 2, strict.stderr
    assert "line 2" in strict.stderr


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_a_list_cuts_no_number_and_no_label(columns: int) -> None:
    from rich.console import Console

    from guardfleet.cli import terminal

    out = Console(width=columns, record=True, file=io.StringIO(), force_terminal=True)
    rows = [("job_" + "a" * 32, "1,234,567", "a name that is far too long for eighty columns" * 2), ("job_" + "b" * 32, "5", "n")]
    terminal.say(terminal.listed(("job", "texts", "name"), rows, to=out, numbers=("texts",), cut="name"), to=out)
    head, *lines = out.export_text().splitlines()
    assert len(lines) == 2
    assert all(row[0] in line and row[1] in line for row, line in zip(rows, lines, strict=True))
    assert all(len(line.rstrip()) <= columns for line in (head, *lines))


@with_broker("redis")
def test_jobs_are_listed_and_watched(settings: Settings, db: Database, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings)
    names = ["first.jsonl", "second.jsonl", "a name that is far too long for eighty columns.jsonl"]
    submitted = [producer.submit([f"{name} {i}" for i in range(1500)], JobOptions(name=name)).job for name in names]
    producer.db.close()

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return said(settings, *args)

    listed = run("jobs")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [job.label for job in reversed(submitted)]
    assert all("1,500" in line and "running" in line for line in lines[1:])
    assert [line.split(maxsplit=6)[-1].strip() for line in lines[1:]] == list(reversed(names)), "a pipe has room"
    page = run("jobs", "--limit", "1", "--json", "--after", submitted[1].label)
    assert [json.loads(line)["job"] for line in page.stdout.splitlines()] == [submitted[0].label]
    assert [json.loads(line)["job"] for line in run("jobs", "--json", "--name", "SECOND").stdout.splitlines()] == [
        submitted[1].label
    ]
    assert run("jobs", "--state", "completed").stderr.strip() == "no jobs"
    assert run("jobs", "--state", "asleep").returncode == 2
    assert run("watch", "job_" + "0" * 32).returncode == 2
    watching = subprocess.Popen(
        [sys.executable, "-P", "-m", "guardfleet", "watch", submitted[0].label],
        env=os.environ | settings.as_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: b"guardfleet" in pathlib.Path(f"/proc/{watching.pid}/cmdline").read_bytes(), what="the command")
    with fleet(settings, tmp_path, ("dispatcher",), ("worker",)):
        _, told = watching.communicate(timeout=patience(90))
    assert watching.returncode == 0, told
    assert f"{submitted[0].label}: completed" in told
    assert "start of the worker included" not in told


@with_broker("redis")
def test_ctrl_c_on_a_watch_says_how_to_see_it_again(settings: Settings, db: Database) -> None:
    producer = DirectClient.connect(settings)
    job = producer.submit(["x"]).job
    producer.db.close()
    environment = os.environ | settings.as_environment()
    call = [sys.executable, "-P", "-m", "guardfleet", "watch", job.label]
    watching = subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)
    looks = """select count(*) from pg_stat_activity where application_name = 'guardfleet-watch' and datname = current_database()
               and query_start > backend_start + interval '1 s'"""  # it polls: it has come as far as the progress
    until(lambda: scalar(db, looks), what="looks at the job")
    watching.send_signal(signal.SIGINT)
    _, told = watching.communicate(timeout=patience(60))
    assert watching.returncode == 3, told
    assert f"guardfleet watch {job.label}" in told


@with_broker("redis")
def test_a_job_without_verdicts_has_no_empty_table(settings: Settings, db: Database) -> None:
    producer = DirectClient.connect(settings)
    job = producer.submit(["x"]).job
    producer.db.close()
    shown = said(settings, "status", job.label)
    assert shown.returncode == 0, shown.stderr
    assert "completed" in shown.stdout or "running" in shown.stdout
    assert "category" not in shown.stdout

"""What a new user does first, and does wrong: one sentence with the fix, and the documented exit status."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from tests.integration.test_commands import command, data_dir

__all__ = ["data_dir"]


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "[[unsafe]]"}\n')
    return path


def in_terms(*args: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": str(columns)}
    run = [sys.executable, "-P", "-m", "guardfleet", *args]
    return subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "name", ["with a space", 'it\'s "quoted" $HOME `x` & more', "文字 ümlaut", "long" * 30, "comma,semi;colon%20"]
)
def test_a_data_folder_may_have_any_name(data_dir: pathlib.Path, source: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    data_dir.mkdir()
    done = command(data_dir / name, "scan", str(source), "-o", str(tmp_path / "out.csv"), engine="instant")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: pathlib.Path, source: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (pathlib.Path("/proc/gf"), tmp_path / "file", tmp_path / "file" / "below"):
        for args in (("scan", str(source)), ("up",), ("doctor",)):
            done = command(folder, *args, engine="instant")
            assert done.returncode == 2, done.stderr
            assert "set GUARDFLEET_DATA_DIR to a folder you own" in done.stderr.replace("\n", " ")
            assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_a_data_folder_below_a_closed_one_names_the_closed_one(tmp_path: pathlib.Path, source: pathlib.Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = command(closed / "data", "scan", str(source), engine="instant")
    assert done.returncode == 2
    assert f"lies below {closed}, which user nobody cannot enter" in done.stderr or f"lies below {tmp_path.parent}" in done.stderr
    assert "chmod o+x" in done.stderr


@pytest.mark.parametrize(("args", "name"), [(("up",), "API_PORT"), (("doctor",), "API_PORT"), (("doctor",), "METRICS_PORT")])
def test_a_taken_port_is_named_with_its_setting(data_dir: pathlib.Path, args: tuple[str, ...], name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command(data_dir, *args, engine="instant", **{name.lower(): port})
    assert done.returncode == 2, done.stderr
    assert f"port {port} at 127.0.0.1 is taken: set GUARDFLEET_{name} to another" in done.stderr.replace("\n", " ")
    assert not (data_dir / "postgres").exists(), "servers were started first"


def test_bare_guardfleet_shows_its_help_and_versions_are_told() -> None:
    bare = in_terms()
    assert bare.returncode == 2
    assert "Usage: " in bare.stdout
    assert bare.stderr == ""
    assert in_terms("keys").stderr == ""
    assert in_terms("--version").stdout == in_terms("version").stdout
    assert in_terms("--show-completion", "bash").returncode == 0
    assert "--install-completion" in in_terms("--help").stdout


def test_a_probability_is_told_as_it_was_given(data_dir: pathlib.Path, source: pathlib.Path) -> None:
    assert command(data_dir, "scan", str(source), "-o", "-", engine="instant").returncode == 0
    job = command(data_dir, "scan", str(source), "-o", "-", engine="instant").stderr.split("(job_")[1][:32]
    told = json.loads(command(data_dir, "status", f"job_{job}", "--json").stdout)
    assert (told["sure"], told["sample"]) == (0.9, 0.01)

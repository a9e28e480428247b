"""Where verdicts are written: never over the input, with the mode and behind the links of the previous file, or into a pipe."""

import os
import pathlib
import stat
import threading

import pytest

from guardfleet.errors import RejectedError
from guardfleet.verdicts import export, targets
from tests.services.commands import said
from tests.services.patience import patience

ROWS = [{"id": "1"}, {"id": "2"}]
LINES = b'{"id":"1"}\n{"id":"2"}\n'


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "x", "label": "safe"}\n')
    return path


@pytest.mark.parametrize("way", ["itself", "a link", "a link to its folder", "another name", "the refused lines", "in a folder"])
def test_no_output_is_one_of_the_inputs(tmp_path: pathlib.Path, source: pathlib.Path, way: str) -> None:
    out, given = tmp_path / "out.jsonl", source
    if way == "itself":
        out = source
    elif way == "a link":
        out.symlink_to(source)
    elif way == "a link to its folder":
        (tmp_path / "beside").symlink_to(tmp_path)
        out = tmp_path / "beside" / "in.jsonl"
    elif way == "another name":
        out.hardlink_to(source)
    elif way == "in a folder":
        given, out = tmp_path, source
    else:
        given = source.rename(tmp_path / "out.jsonl.rejected.jsonl")
    before = given.read_bytes() if given.is_file() else b""
    done = said(tmp_path / "data", "scan", str(given), "-o", str(out), engine="instant")
    assert done.returncode == 2, done.stderr
    assert "is an input" in done.stderr
    assert not (tmp_path / "data").exists(), "something was started"
    assert (given.read_bytes() if given.is_file() else b"") == before
    if way not in ("the refused lines", "in a folder"):
        table = said(tmp_path / "data", "evaluate", str(source), "--csv", str(out.rename(tmp_path / "in.csv")), engine="instant")
        assert table.returncode == 2, table.stderr


def test_standard_input_and_output_are_looked_behind(
    tmp_path: pathlib.Path, source: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with source.open("r+") as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(RejectedError, match="is an input"):
            targets.require_apart([str(source)], ["-"])
        monkeypatch.setattr("sys.stdout", file)
        with pytest.raises(RejectedError, match="is an input"):
            targets.require_apart(["-"], [str(source)])
    null = str(tmp_path / "pipe")
    os.mkfifo(null)
    targets.require_apart([null], [null])


def test_a_link_stays_one_and_what_it_leads_to_keeps_its_mode(tmp_path: pathlib.Path) -> None:
    target, link, dangling = tmp_path / "target.jsonl", tmp_path / "link.jsonl", tmp_path / "dangling.jsonl"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "made.jsonl")
    for path in (link, dangling):
        assert export.ready(str(path)) == "jsonl"
        assert export.write_jsonl(ROWS, str(path)) == 2
        assert path.is_symlink()
        assert path.read_bytes() == LINES
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling.jsonl", "link.jsonl", "made.jsonl", "target.jsonl"]


def test_a_pipe_is_written_into_and_stays_one(tmp_path: pathlib.Path) -> None:
    pipe, got = tmp_path / "pipe.jsonl", []
    os.mkfifo(pipe)
    assert export.ready(str(pipe)) == "jsonl"
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    export.write_jsonl(ROWS, str(pipe))
    reader.join(patience(10))
    assert got == [LINES]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert targets.rejected_beside(str(pipe)) is targets.rejected_beside("-") is None
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.jsonl"]


def test_what_a_killed_command_left_is_in_nobodys_way(tmp_path: pathlib.Path) -> None:
    for number in (os.getpid(), 1):
        (tmp_path / f"out.jsonl.part{number}").touch()
    export.ready(str(tmp_path / "out.jsonl"))
    with pytest.raises(ZeroDivisionError):
        export.write_jsonl(({"id": 1 // n} for n in (1, 0)), str(tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()
    assert len(list(tmp_path.iterdir())) == 2

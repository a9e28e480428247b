"""Inputs that can be read only once, such as pipes: every row is read, alone and among files, or it is refused; nothing hangs."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Iterator

import pytest

from guardfleet.cli.fingerprint import fingerprint
from guardfleet.cli.input_options import opened
from guardfleet.errors import RejectedError
from guardfleet.rows.payload import PayloadRow
from producer.readers import AS_FOUND
from producer.sources import Inputs

Piped = Callable[[bytes], str]
MOST = 1 << 20


@pytest.fixture
def piped() -> Iterator[Piped]:
    """Makes the path of a pipe that holds these bytes, as a shell's <(...) has it."""
    with contextlib.ExitStack() as stack:

        def path_of(data: bytes) -> str:
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            os.write(writing, data)
            os.close(writing)
            return f"/dev/fd/{reading}"

        yield path_of


def contents(inputs: Inputs) -> list[object]:
    return [row.content for _, row in inputs.rows() if isinstance(row, PayloadRow)]


@pytest.mark.parametrize("text", ['"a"\n"b"\n', "id,text\n1,a\n2,b\n", '["a", "b"]'])
def test_a_pipe_loses_no_row_alone_or_among_files(piped: Piped, tmp_path: pathlib.Path, text: str) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text('"c"\n')
    assert contents(opened([piped(text.encode())], AS_FOUND, max_text_bytes=MOST, allow_empty=False)) == ["a", "b"]
    for place, expected in ((0, ["a", "b", "c"]), (1, ["c", "a", "b"])):
        sources = [str(file)]
        sources.insert(place, piped(text.encode()))
        inputs = opened(sources, AS_FOUND, max_text_bytes=MOST, allow_empty=False)
        assert fingerprint(inputs.paths, "scan", {}) is None
        assert not inputs.is_repeatable
        assert contents(inputs) == expected
    two = [piped(b'"a"\n'), piped(b'"b"\n')]
    assert contents(Inputs(two, max_text_bytes=MOST)) == ["a", "b"]


def test_a_named_pipe_is_opened_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "in.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=('"a"\n"b"\n',))
    writer.start()
    inputs = opened([str(path)], AS_FOUND, max_text_bytes=MOST, allow_empty=False)
    assert contents(inputs) == ["a", "b"]
    writer.join()
    with pytest.raises(RejectedError, match="is a stream and was read already"):
        next(inputs.rows())


def test_a_pipe_under_two_names_and_a_table_in_a_pipe_are_refused(piped: Piped, tmp_path: pathlib.Path) -> None:
    path = piped(b'"a"\n')
    again = tmp_path / "again.jsonl"
    again.symlink_to(path)
    with pytest.raises(RejectedError, match="is given twice, also as /dev/fd/"):
        Inputs([path, str(again)], max_text_bytes=MOST)
    with pytest.raises(RejectedError, match="is Parquet: give it as an uncompressed file"):
        Inputs([piped(b"PAR1....")], max_text_bytes=MOST)

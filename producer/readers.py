"""JSONL, CSV and Parquet as numbered rows, streamed: memory is flat in the file's size."""

import csv
import io
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from guardfleet.errors import ConfigurationError, LineError, RejectedError
from guardfleet.lines import numbered_rows
from guardfleet.rows import row_of
from guardfleet.sealing import PayloadRow

Line = PayloadRow | LineError
Numbered = tuple[int, Line]  # the line (of Parquet, the row), from 1
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
PARQUET_ROWS = 4096
PIECE_BYTES = 256 << 10  # of a file, or what a pipe has by now


def read(path: str, *, max_text_bytes: int) -> Iterator[Numbered]:
    """The rows of a file (`-`: JSONL from standard input), each with its line, as a payload row or as the error of its line.

    Raises RejectedError when the file as a whole cannot be read.
    """
    if path == "-":
        with open(sys.stdin.fileno(), "rb", closefd=False) as lines:
            yield from read_jsonl(lines, max_text_bytes=max_text_bytes)
        return
    file = pathlib.Path(path)
    kind = FORMATS.get(file.suffix.lower())
    if kind is None:
        raise RejectedError(f"{path}: unknown kind of file; {', '.join(sorted(set(FORMATS)))} are read.")
    try:
        if kind == "parquet":
            yield from _read_parquet(file, max_text_bytes)
        elif kind == "csv":
            with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as rows:
                yield from read_csv(rows, max_text_bytes=max_text_bytes)
        else:
            with file.open("rb") as lines:
                yield from read_jsonl(lines, max_text_bytes=max_text_bytes)
    except OSError as error:
        raise RejectedError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from error


def read_jsonl(lines: io.BufferedReader, *, max_text_bytes: int) -> Iterator[Numbered]:
    """One JSON value a line; blank lines are skipped but counted."""
    return numbered_rows(iter(lambda: lines.read1(PIECE_BYTES), b""), max_text_bytes=max_text_bytes)


def read_csv(rows: Iterable[str], *, max_text_bytes: int) -> Iterator[Numbered]:
    """Columns `id` (optional) and `text`, named in the header; others become metadata."""
    csv.field_size_limit(max(csv.field_size_limit(), max_text_bytes + 1))
    reader = csv.DictReader(rows, strict=True)
    if "text" not in (reader.fieldnames or ()):
        raise RejectedError("the CSV has no column named text; its first line is to name the columns.")
    number = 1
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, LineError(number, "invalid_csv", str(error))
            continue
        yield number, _taken(number, _named(row), max_text_bytes)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    extra = {key: value for key, value in row.items() if key not in ("id", "text") and key is not None and value not in (None, "")}
    out: dict[str, Any] = {"text": row.get("text")}
    if row.get("id"):
        out["id"] = row["id"]
    if extra:
        out["metadata"] = extra
    return out


def _read_parquet(file: pathlib.Path, max_text_bytes: int) -> Iterator[Numbered]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra; JSONL and CSV do without
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'guardfleet[producer]'.") from None
    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise RejectedError(f"{file} is no Parquet file: {error}") from error
    names = [name for name in ("id", "text", "messages", "metadata") if name in table.schema_arrow.names]
    if not {"text", "messages"} & set(names):
        raise RejectedError(f"{file} has no column named text or messages.")
    number = 0
    for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=names):
        for value in batch.to_pylist():
            number += 1
            present = {key: inner for key, inner in value.items() if inner is not None}
            yield number, _taken(number, present, max_text_bytes)


def _taken(number: int, value: object, max_text_bytes: int) -> Line:
    try:
        return row_of(number, value, max_text_bytes=max_text_bytes)
    except LineError as error:
        return error

"""Verdicts on their way to a file: JSONL, CSV or Parquet, streamed, renamed into place when whole."""

import csv
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from guardfleet.errors import ConfigurationError, RejectedError
from guardfleet.store.verdicts import FIELDS

FORMATS = ("jsonl", "csv", "parquet")
FLAT = tuple(name for name in FIELDS if name != "seq")
NESTED = ("metadata", "category_probabilities", "evidence")  # one JSON each in CSV and Parquet
PARQUET_ROWS = 50_000


def format_of(path: str, wanted: str | None = None) -> str:
    """The format to write: the one asked for, else by the file's suffix, else JSONL. Raises RejectedError."""
    chosen = wanted or {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}.get(pathlib.Path(path).suffix.lower(), "jsonl")
    if chosen not in FORMATS:
        raise RejectedError(f"format {chosen!r} is unknown; {', '.join(FORMATS)} are written.")
    return chosen


def public_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict as callers see it, in files and over HTTP."""
    out = {
        "id": row["id"],
        "severity": row["severity"],
        "categories": row["categories"],
        "refusal": row["refusal"],
        "probabilities": None if row["p_safe"] is None else {
            "safe": row["p_safe"], "controversial": row["p_controversial"], "unsafe": row["p_unsafe"]},
        "category_probabilities": row["category_probabilities"],
        "rationale": row["rationale"],
        "evidence": row["evidence"],
        "served_by": row["served_by"],
        "model": row["model"],
        "revision": row["revision"],
        "policy": row["policy"],
        "is_demo": row["is_demo"],
        "error": None if row["error"] is None else {"code": row["error"], "detail": row["error_detail"]},
        "raw": row["raw"],
        "tokens": {"input": row["input_tokens"], "output": row["output_tokens"]},
        "done_at": row["done_at"].isoformat(),
    }  # fmt: skip
    return out if row["metadata"] is None else out | {"metadata": row["metadata"]}


def write(rows: Iterable[Mapping[str, Any]], path: str, fmt: str) -> int:
    """Write all rows to `path` (`-`: standard output) and return how many. A file appears only once it is whole."""
    if path == "-":
        import sys  # noqa: PLC0415

        return _write_text(rows, sys.stdout, fmt)
    target = pathlib.Path(path)
    with _whole(target) as part:
        if fmt == "parquet":
            return _write_parquet(rows, part)
        with part.open("w", encoding="utf-8", newline="") as file:
            return _write_text(rows, file, fmt)


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: str) -> int:
    """Write plain objects, one a line."""
    n = 0
    with _whole(pathlib.Path(path)) as part, part.open("w", encoding="utf-8") as file:
        for n, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return n


@contextmanager
def _whole(target: pathlib.Path) -> Iterator[pathlib.Path]:
    part = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        yield part
        part.replace(target)
    except OSError as error:
        raise RejectedError(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)


def _write_text(rows: Iterable[Mapping[str, Any]], file: TextIO, fmt: str) -> int:
    n = 0
    if fmt == "csv":
        writer = csv.writer(file)
        writer.writerow(FLAT)
        for n, row in enumerate(rows, 1):  # noqa: B007
            writer.writerow([_cell(row[name]) for name in FLAT])
        return n
    if fmt == "parquet":
        raise RejectedError("Parquet needs a file to write to.")
    for n, row in enumerate(rows, 1):  # noqa: B007
        file.write(json.dumps(public_row(row), ensure_ascii=False) + "\n")
    return n


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value  # a spreadsheet would run it as a formula
    return value.isoformat() if hasattr(value, "isoformat") else value


def _write_parquet(rows: Iterable[Mapping[str, Any]], path: pathlib.Path) -> int:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'guardfleet[producer]'.") from None
    text, number = pa.string(), pa.float32()
    types = {
        "categories": pa.list_(text),
        "refusal": pa.bool_(),
        "p_safe": number,
        "p_controversial": number,
        "p_unsafe": number,
        "is_demo": pa.bool_(),
        "input_tokens": pa.int32(),
        "output_tokens": pa.int32(),
        "done_at": pa.timestamp("us", "UTC"),
    }
    schema = pa.schema([(name, types.get(name, text)) for name in FLAT])
    n = 0
    with pq.ParquetWriter(path, schema) as writer:
        for page in _pages(rows):
            plain = [{name: json.dumps(row[name]) if name in NESTED and row[name] else row[name] for name in FLAT} for row in page]
            writer.write_table(pa.Table.from_pylist(plain, schema))
            n += len(page)
    return n


def _pages(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    page: list[Mapping[str, Any]] = []
    for row in rows:
        page.append(row)
        if len(page) >= PARQUET_ROWS:
            yield page
            page = []
    if page:
        yield page

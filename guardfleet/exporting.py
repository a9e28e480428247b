"""Verdicts on their way to a file: JSONL, CSV or Parquet, streamed, renamed into place when whole."""

import csv
import io
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import orjson

from guardfleet.errors import ConfigurationError, RejectedError
from guardfleet.rendering import FIELDS
from guardfleet.store.verdicts import Page

FORMATS = ("jsonl", "csv", "parquet")
FLAT = tuple(name for name in FIELDS if name != "seq")
NESTED = ("metadata", "category_probabilities", "evidence")  # one JSON each in CSV and Parquet
PARQUET_PAGES = 10  # in a row group


def format_of(path: str, wanted: str | None = None) -> str:
    """The format to write: the one asked for, else by the file's suffix, else JSONL. Raises RejectedError."""
    chosen = wanted or {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}.get(pathlib.Path(path).suffix.lower(), "jsonl")
    if chosen not in FORMATS:
        raise RejectedError(f"format {chosen!r} is unknown; {', '.join(FORMATS)} are written.")
    return chosen


def write(pages: Iterable[Page], path: str, fmt: str) -> int:
    """Write all verdicts to `path` (`-`: standard output) and return how many. A file appears only once it is whole."""
    n = 0

    def counted() -> Iterator[Page]:
        nonlocal n
        for page in pages:
            yield page
            n += len(page.rows)

    if path == "-":
        if fmt == "parquet":
            raise RejectedError("Parquet needs a file to write to.")
        sys.stdout.buffer.writelines(encode(counted(), fmt))
        sys.stdout.flush()
        return n
    with _whole(pathlib.Path(path)) as part, part.open("wb") as file:
        file.writelines(encode(counted(), fmt))
    return n


def encode(pages: Iterable[Page], fmt: str) -> Iterator[bytes]:
    """The verdicts in one of `FORMATS`, piece by piece, as pages come."""
    return {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[fmt](pages)


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: str) -> int:
    """Write plain objects, one a line."""
    n = 0
    with _whole(pathlib.Path(path)) as part, part.open("wb") as file:
        for n, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
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


def _jsonl(pages: Iterable[Page]) -> Iterator[bytes]:
    for page in pages:
        yield b"\n".join(page.json_objects()) + b"\n"


def _csv(pages: Iterable[Page]) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(FLAT)
    for page in pages:
        writer.writerows([_cell(row[name]) for name in FLAT] for row in page.fields())
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()  # the header alone, where there were no pages


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value  # a spreadsheet would run it as a formula
    return value.isoformat() if hasattr(value, "isoformat") else value


def _parquet(pages: Iterable[Page]) -> Iterator[bytes]:
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
    written = _Written()
    with pq.ParquetWriter(written, schema) as writer:
        source = iter(pages)
        while group := list(islice(source, PARQUET_PAGES)):
            rows = (row for page in group for row in page.fields())
            plain = [{name: _nested(row[name]) if name in NESTED else row[name] for name in FLAT} for row in rows]
            writer.write_table(pa.Table.from_pylist(plain, schema))
            yield written.taken()
    yield written.taken()


def _nested(value: Any) -> str | None:
    return orjson.dumps(value).decode() if value else None


class _Written(io.RawIOBase):
    """A file that is read off while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        out = b"".join(self._parts)
        self._parts.clear()
        return out

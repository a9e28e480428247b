"""Export verdicts to a file: JSONL, CSV or Parquet, streamed."""

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from guardfleet.errors import ConfigurationError, RejectedError
from guardfleet.verdicts import targets
from guardfleet.verdicts.page import Content, Page
from guardfleet.verdicts.rendering import FIELDS

FORMATS = ("jsonl", "csv", "parquet")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
FLAT = tuple(name for name in FIELDS if name != "seq")
NESTED = ("metadata", "category_probabilities", "evidence", "decision", "detections")  # as JSON text in CSV and Parquet
TEXTS = ("text", "messages")  # a verdict has one of them, the conversation as JSON
PARQUET_PAGES = 4  # per row group: 20,000 verdicts
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets execute cells that begin with one of these


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds besides the verdicts.

    `metadata_keys`: write these as columns of their own in CSV and Parquet, instead of one column with all metadata.
    `is_spreadsheet_safe`: put an apostrophe before what a spreadsheet would execute as a formula, ids included.
    """

    with_text: bool = False
    metadata_keys: tuple[str, ...] | None = None
    is_spreadsheet_safe: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a flat file."""
        if self.metadata_keys is None:
            names = FLAT
        else:
            at = FLAT.index("metadata")
            names = (*FLAT[:at], *(f"metadata.{key}" for key in self.metadata_keys), *FLAT[at + 1 :])
        return (*names, *TEXTS) if self.with_text else names


PLAIN = Layout()


def format_of(path: str, wanted: str | None = None) -> str:
    """Return the format to write: the requested one, else by the suffix, JSONL if there is none. Raises RejectedError."""
    suffix = pathlib.Path(path).suffix.lower()
    chosen = wanted or (SUFFIXES.get(suffix) if suffix else "jsonl")
    if chosen is None:
        raise RejectedError(f"{path}: the suffix names no known format; use one of {', '.join(SUFFIXES)}.")
    if chosen not in FORMATS:
        raise RejectedError(f"format {chosen!r} is unknown; use one of {', '.join(FORMATS)}.")
    return chosen


def ready(path: str, wanted: str | None = None) -> str:
    """Return the format to write, after checking that the file can be written: a long run must not fail at its end.

    Raises RejectedError, and ConfigurationError if a package is missing.
    """
    fmt = format_of(path, wanted)
    if fmt == "parquet":
        _pyarrow()
        if path == targets.STANDARD:
            raise RejectedError("Parquet cannot be written to standard output: name a file.")
    targets.require_writable(path)
    return fmt


def write(pages: Iterable[Page], path: str, fmt: str, layout: Layout = PLAIN) -> int:
    """Write all verdicts to `path` (`-`: standard output) and return their number."""
    n = 0

    def counted() -> Iterator[Page]:
        nonlocal n
        for page in pages:
            yield page
            n += len(page.rows)

    with targets.whole(path) as file:
        file.writelines(encode(counted(), fmt, layout))
    return n


def encode(pages: Iterable[Page], fmt: str, layout: Layout = PLAIN) -> Iterator[bytes]:
    """Yield the verdicts as bytes in one of `FORMATS`, page by page."""
    return {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[fmt](pages, layout)


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: str) -> int:
    """Write plain objects, one per line (`-`: to standard output), and return their number."""
    n = 0
    with targets.whole(path) as file:
        for n, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return n


def _jsonl(pages: Iterable[Page], layout: Layout) -> Iterator[bytes]:
    for page in pages:
        objects = page.json_objects()
        if layout.with_text and page.contents is not None:
            objects = (said[:-1] + _member(content) + b"}" for said, content in zip(objects, page.contents, strict=True))
        yield b"".join(said + b"\n" for said in objects)


def _member(content: Content | None) -> bytes:
    name = b"messages" if isinstance(content, list) else b"text"
    try:
        return b',"%b":%b' % (name, orjson.dumps(content))
    except TypeError:  # escape a lone surrogate, so that it stays what it is
        return b',"%b":%b' % (name, json.dumps(content).encode())


def _flat(page: Page, layout: Layout) -> Iterator[dict[str, Any]]:
    """Yield each verdict by the layout's columns."""
    for row, content in zip(page.fields(), page.contents or [None] * len(page.rows), strict=True):
        if layout.metadata_keys is not None:
            metadata = row["metadata"] or {}
            row |= {f"metadata.{key}": metadata.get(key) for key in layout.metadata_keys}
        if layout.with_text:
            row["text"] = shown(content) if isinstance(content, str) else None
            row["messages"] = shown(json.dumps(content, ensure_ascii=False)) if isinstance(content, list) else None
        yield row


def shown(text: str) -> str:
    """Return the text in valid UTF-8: a lone surrogate becomes U+FFFD, as the model saw it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _csv(pages: Iterable[Page], layout: Layout) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    columns = layout.columns
    writer.writerow(columns)
    for page in pages:
        rows = ([cell(row[name]) for name in columns] for row in _flat(page, layout))
        writer.writerows(([safe(one) for one in row] for row in rows) if layout.is_spreadsheet_safe else rows)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()  # only the header, if there were no pages


def cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "; ".join(value)
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value


def safe(value: Any) -> Any:
    """Return the cell with an apostrophe before it if a spreadsheet would run it."""
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'guardfleet[producer]'.") from None
    return pa


def _parquet(pages: Iterable[Page], layout: Layout) -> Iterator[bytes]:
    pa = _pyarrow()
    import pyarrow.parquet as pq  # noqa: PLC0415

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
    schema = pa.schema([(name, types.get(name, text)) for name in layout.columns])
    written = _Written()
    with pq.ParquetWriter(written, schema) as writer:
        group: list[Any] = []
        for page in pages:  # hold only one page of a group as Python rows: they take ten times the memory
            group.append(pa.RecordBatch.from_pylist([_typed(row, layout.columns) for row in _flat(page, layout)], schema))
            if len(group) == PARQUET_PAGES:
                writer.write_table(pa.Table.from_batches(group, schema))
                group = []
            yield written.taken()
        if group:
            writer.write_table(pa.Table.from_batches(group, schema))
    yield written.taken()


def _typed(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: _nested(row[name]) if name in NESTED else _scalar(row[name]) if name.startswith("metadata.") else row[name]
        for name in columns
    }


def _nested(value: Any) -> str | None:
    return orjson.dumps(value).decode() if value else None


def _scalar(value: Any) -> str | None:
    """Return a member of the metadata as text: its type may differ from row to row."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


class _Written(io.RawIOBase):
    """A file whose content is taken out while it is written."""

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
        """Return what was written since the last call."""
        out = b"".join(self._parts)
        self._parts.clear()
        return out

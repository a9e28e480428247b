"""Read Parquet and Arrow: typed columns, a few thousand rows at a time. A damaged part costs only its own rows."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from guardfleet.errors import ConfigurationError, LineError, RejectedError
from guardfleet.rows.columns import METADATA, Columns, object_of
from guardfleet.rows.conversations import CONVERSATIONS
from producer.layout import Item, Tally

ROWS = 4096  # read at once
NO_PYARROW = "Parquet and Arrow need pyarrow: pip install 'guardfleet[producer]'."


@dataclass(frozen=True)
class Part:
    """Rows that are read together: a row group, or a record batch. `rows` is None if unknown before reading."""

    n: int
    rows: int | None


class ParquetParts:
    """The row groups of a Parquet file."""

    def __init__(self, path: str) -> None:
        pa, pq = _pyarrow()
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise RejectedError(f"{path} is not a complete Parquet file: {_short(error)}.") from error
        self.schema = self._file.schema_arrow
        groups = [self._file.metadata.row_group(n) for n in range(self._file.metadata.num_row_groups)]
        self.parts = [Part(n, group.num_rows) for n, group in enumerate(groups)]

    def batches(self, part: Part, names: Sequence[str]) -> Iterator[Any]:
        """Yield the rows of a part, in batches."""
        yield from self._file.iter_batches(batch_size=ROWS, row_groups=[part.n], columns=list(names))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ArrowParts:
    """The record batches of an Arrow (Feather) file, or of an Arrow stream."""

    def __init__(self, path: str) -> None:
        pa, _ = _pyarrow()
        self._source = pa.OSFile(path, "rb")
        try:
            try:
                self._reader = pa.ipc.open_file(self._source)
                self.parts = [Part(n, None) for n in range(self._reader.num_record_batches)]
                self._get = self._reader.get_batch
            except pa.ArrowInvalid:
                self._source.seek(0)
                self._reader = pa.ipc.open_stream(self._source)
                self.parts = [Part(0, None)]
                self._get = None
        except (pa.ArrowException, OSError) as error:
            self._source.close()
            raise RejectedError(f"{path} is not a complete Arrow file: {_short(error)}.") from error
        self.schema = self._reader.schema

    def batches(self, part: Part, names: Sequence[str]) -> Iterator[Any]:
        """Yield the rows of a part, in batches."""
        for batch in self._reader if self._get is None else (self._get(part.n),):
            chosen = batch.select(list(names))
            for at in range(0, chosen.num_rows, ROWS):
                yield chosen.slice(at, ROWS)

    def close(self) -> None:
        """Close the file."""
        self._source.close()


@dataclass
class Tables:
    """The rows of one file, numbered from 1."""

    parts: ParquetParts | ArrowParts
    columns: Columns
    tally: Tally = field(default_factory=Tally)

    def items(self) -> Iterator[Item]:
        """Yield every row."""
        pa, _ = _pyarrow()
        wanted = [name for name in self.parts.schema.names if self._is_read(name)]
        number = 0
        for part in self.parts.parts:
            first = number + 1
            try:
                for batch in self.parts.batches(part, wanted):
                    for value in _values(batch):
                        number += 1
                        self.tally.taken += 1
                        yield number, number, self._row(number, value)
            except (pa.ArrowException, OSError) as error:
                last = number + 1 if part.rows is None else first + part.rows - 1
                self.tally.refused += last - number
                yield number + 1, last, LineError(number + 1, "damaged", f"cannot be read: {_short(error)}", last_line=last)
                number = last
        self.parts.close()

    def _is_read(self, name: str) -> bool:
        """Return whether the column is used, or may hold a text where the text column has none."""
        return not self.columns.is_told or name in self.columns.used or bool(self.columns.others([name]))

    def _row(self, number: int, value: dict[str, Any]) -> Any:
        for name in (self.columns.text, self.columns.id, *CONVERSATIONS):
            if isinstance(cell := value.get(name), Unreadable):
                return LineError(number, "wrong_type", f"{name} holds {cell.what}")
        for name in CONVERSATIONS:
            if isinstance(value.get(name), str) and name != self.columns.text:
                try:
                    value[name] = self.columns.conversation(name, value[name], has_text=bool(value.get(self.columns.text)))
                except ValueError as error:
                    return LineError(number, "wrong_type", str(error))
        if isinstance(value.get(METADATA), str):
            value[METADATA] = object_of(value[METADATA])
        return value


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A cell that has no value in Python or JSON, so nobody can judge it."""

    what: str


def check_types(schema: Any, columns: Columns, name: str) -> None:
    """Raise RejectedError if the text column has a type that cannot hold text."""
    pa, _ = _pyarrow()
    if columns.text not in schema.names:
        return
    kind = schema.field(columns.text).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    raw = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if not any(matches(kind) for matches in (*texts, *raw)):
        raise RejectedError(f"{name}: the column {columns.text} holds {kind} instead of text.")


def _values(batch: Any) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    cells = [_python(column) for column in batch.columns]
    return (dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True))


def _python(column: Any) -> list[Any]:
    """Return a column as Python values; convert one by one if some have no equivalent."""
    try:
        values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    except Exception:  # noqa: BLE001 - raised for a single value; its type is one of a dozen
        values = [_one(scalar) for scalar in column]
    return values


def _one(scalar: Any) -> Any:
    """Convert one value: to text what Python cannot represent (nanoseconds, the year 10,000), to bytes what is not UTF-8."""
    pa, _ = _pyarrow()
    with suppress(Exception):
        return scalar.as_py(maps_as_pydicts="strict")
    with suppress(Exception):
        is_text = str(scalar.type).endswith(("string", "string_view"))
        found = scalar.cast(pa.binary() if is_text else pa.string()).as_py()
        if is_text or not found.startswith("<value out of range"):  # how Arrow writes what it cannot represent either
            return found
    return Unreadable(f"{scalar.type} without an equivalent value, or a repeated key")


def _short(error: Exception) -> str:
    """Return the first line of pyarrow's message."""
    return str(error).split("\n", 1)[0].strip().rstrip(".")[:200] or type(error).__name__


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra; JSON and CSV work without it
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(NO_PYARROW) from None
    return pa, pq

"""The options that describe a command's input: its files, their format, the columns that matter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardfleet.cli import terminal
from guardfleet.errors import RejectedError

if TYPE_CHECKING:
    from producer.readers import Reading
    from producer.sources import Inputs

SOURCES = "Files, folders or patterns: JSONL, JSON, CSV, TSV, Parquet or Arrow, gzip or zstd; - for standard input."
Sources = Annotated[list[str], typer.Argument(metavar="IN...", help=SOURCES)]
Format = Annotated[
    str | None, typer.Option("--format", help="jsonl, json, csv, tsv, lines, parquet or arrow; by default from the content.")
]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Encoding, if not UTF-8: gbk, windows-1252, shift_jis, ...")]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Column or key of the text (default: text).")]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="Column or key of the id (default: id).")]
MetadataColumns = Annotated[
    str | None, typer.Option("--metadata-columns", help="Columns to keep as metadata: all others (the default), none, or a,b,c.")
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept an input without rows.")]


def reading_of(
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    metadata_columns: MetadataColumns = None,
    fmt: Format = None,
    encoding: Encoding = None,
) -> Any:
    """Build a Reading from the options. Raises RejectedError."""
    from guardfleet.rows.columns import Columns
    from producer.readers import Reading

    return Reading(fmt, encoding, Columns.of(text_column, id_column, metadata_columns))


def opened(sources: Sequence[str], reading: "Reading", *, max_text_bytes: int, allow_empty: bool) -> "Inputs":
    """Open the input and print how it is read. Raises RejectedError if it cannot be read, or has no rows."""
    from producer.sources import Inputs

    inputs = Inputs(sources, reading, max_text_bytes=max_text_bytes)
    terminal.say(inputs.said)
    if inputs.is_repeatable and not allow_empty and next(inputs.rows(), None) is None:
        raise RejectedError(f"the input has no rows: {inputs.name} (use --allow-empty to accept that).")
    return inputs


def asked_of(reading: "Reading") -> dict[str, Any]:
    """Return the reading options that make another input of the same bytes, for the fingerprint; empty if there are none."""
    from producer.readers import AS_FOUND

    if reading == AS_FOUND:
        return {}
    columns = reading.columns
    kept = None if columns.kept is None else list(columns.kept)
    return {
        "format": reading.format,
        "encoding": reading.encoding,
        "text_column": columns.text if columns.is_told else None,
        "id_column": columns.id if columns.id != AS_FOUND.columns.id else None,
        "metadata_columns": kept,
    }

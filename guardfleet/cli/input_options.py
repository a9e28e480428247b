"""How the commands are told of their input: which files, what they are, which columns count."""

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
    str | None, typer.Option("--format", help="jsonl, json, csv, tsv, parquet or arrow, where the content does not tell.")
]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Of text that is not UTF-8: gbk, windows-1252, shift_jis, ...")]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="The column or key that holds the text, if not text.")]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="The one that holds the id, if not id.")]
MetadataColumns = Annotated[
    str | None, typer.Option("--metadata-columns", help="Passed through as metadata: all others (the default), none, or a,b,c.")
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="An input without a row is no error.")]


def reading_of(
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    metadata_columns: MetadataColumns = None,
    fmt: Format = None,
    encoding: Encoding = None,
) -> Any:
    """What was asked, as the reader takes it: a Reading. Raises RejectedError."""
    from guardfleet.rows.columns import Columns
    from producer.readers import Reading

    return Reading(fmt, encoding, Columns.of(text_column, id_column, metadata_columns))


def opened(sources: Sequence[str], reading: "Reading", *, max_text_bytes: int, allow_empty: bool) -> "Inputs":
    """The input, looked at; how it is read is said. Raises RejectedError where it cannot be, or holds nothing."""
    from producer.sources import Inputs

    inputs = Inputs(sources, reading, max_text_bytes=max_text_bytes)
    terminal.say(inputs.said)
    if inputs.is_repeatable and not allow_empty and next(inputs.rows(), None) is None:
        raise RejectedError(f"the input has no rows: {inputs.name} (--allow-empty takes it all the same).")
    return inputs


def asked_of(reading: "Reading") -> dict[str, Any]:
    """What of it makes another input of the same bytes, for the fingerprint; nothing where it is read as it is found."""
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

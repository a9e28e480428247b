"""Rows of labels and samples as CSV or JSONL."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guardfleet.errors import RejectedError
from guardfleet.verdicts import export, targets


def format_of(out: str) -> str:
    """Return the format by the file's suffix, after checking that it can be written. Raises RejectedError."""
    fmt = export.ready(out)
    if fmt == "parquet":
        raise RejectedError(f"{out}: labels and samples are written as .csv or .jsonl.")
    return fmt


def write_rows(rows: Iterable[Mapping[str, Any]], names: Sequence[str], out: str, fmt: str, *, spreadsheet_safe: bool) -> int:
    """Write rows to `out` (`-`: standard output), and return their number."""
    if fmt == "jsonl":
        return export.write_jsonl(rows, out)
    n = 0
    with targets.whole(out) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(file)
        writer.writerow(names)
        for n, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
            cells = [export.cell(row[name]) for name in names]
            writer.writerow([export.safe(one) for one in cells] if spreadsheet_safe else cells)
        file.detach()  # whoever opened it closes it
    return n

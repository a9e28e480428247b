"""Rows with the labels that people gave them: read, and counted where they have none."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from guardfleet.cli import terminal
from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import row_of
from guardfleet.settings import Settings
from producer.sources import Inputs

UNLABELLED, UNKNOWN = "unlabelled", "label_unknown"
Label = TypeVar("Label", bool, frozenset[str], frozenset[tuple[str, float]])
SHOWN = 5  # line numbers


class LeftOut:
    """Rows that count in no figure, by what is wrong with their label: how many, and the lines of the first.

    `known`: which labels there are, in words.
    """

    def __init__(self, known: str) -> None:
        self._known = known
        self.counts = {UNLABELLED: 0, UNKNOWN: 0}
        self._first: dict[str, list[str]] = {UNLABELLED: [], UNKNOWN: []}

    def add(self, why: str, line: str) -> None:
        """Count one row."""
        self.counts[why] += 1
        if len(self._first[why]) < SHOWN:
            self._first[why].append(line)

    def say(self) -> None:
        """Print a line for each kind of label that is missing or unknown. Labels are not quoted: they can be anything."""
        for why, means in ((UNLABELLED, "no label"), (UNKNOWN, f"a label other than {self._known}")):
            if n := self.counts[why]:
                more = f" and {n - SHOWN:,} more" if n > SHOWN else ""
                terminal.say((f"{n:,} rows left out", "yellow"), f", with {means}: line {', '.join(self._first[why])}{more}")


def labelled(
    inputs: Inputs, settings: Settings, limit: int | None, label_of: Callable[[Any], Label | str], left_out: LeftOut
) -> Iterator[tuple[PayloadRow, Label, Mapping[str, Any]]]:
    """Yield the rows that have a label, with it and with the row as it was given, and count the others in `left_out`.

    `label_of` returns a row's label, or UNLABELLED or UNKNOWN. Raises RejectedError for a row that cannot be read.
    """
    n = 0
    for source, line, value in inputs.values():
        if limit is not None and n >= limit:
            return
        try:
            if isinstance(value, LineError):
                raise value
            label = label_of(_merged(value)) if isinstance(value, dict) else UNLABELLED
            if isinstance(label, str):
                left_out.add(label, f"{source} line {line}" if len(inputs.paths) > 1 else str(line))
                continue
            row = row_of(line, _without_last_turn(value), max_text_bytes=settings.intake.max_text_bytes)
        except LineError as error:
            raise RejectedError(f"{source}: {error}") from error
        n += 1
        yield row, label, _merged(value)


def _merged(value: dict[str, Any]) -> dict[str, Any]:
    """Return the row's members, with those of its metadata beside them."""
    metadata = value.get("metadata")
    return {**metadata, **value} if isinstance(metadata, dict) else value


def _without_last_turn(value: Any) -> Any:
    """Drop the text beside a conversation: evaluation sets often repeat the last turn there."""
    if "messages" not in value:
        return value
    return {name: inner for name, inner in value.items() if name != "text"}

"""Stored verdicts as readers get them: a page of them, and where to go on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardfleet.domain.verdict import Model
from guardfleet.verdicts.encoding import StoredVerdict
from guardfleet.verdicts.rendering import fields, json_object

Content = str | list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader of partial results stands: the ordinal of a finished shard, and the last text seen in it."""

    ord: int = 0
    seq: int = -1


@dataclass(frozen=True, slots=True)
class Page:
    """Verdicts, the models that judged them by id, and where to go on; with the text of each where texts.beside put it there."""

    rows: list[StoredVerdict]
    models: Mapping[int, Model]
    reached: Cursor
    has_more: bool = False
    contents: Sequence[Content | None] | None = None

    def json_objects(self) -> Iterator[bytes]:
        """Each verdict as a JSON object."""
        return (json_object(row, self.models[row.model_id]) for row in self.rows)

    def fields(self) -> Iterator[dict[str, Any]]:
        """Each verdict in words."""
        return (fields(row, self.models[row.model_id]) for row in self.rows)

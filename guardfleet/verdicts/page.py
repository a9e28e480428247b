"""A page of stored verdicts, as readers get it, and the cursor of the next page."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import Model
from guardfleet.verdicts.encoding import StoredVerdict
from guardfleet.verdicts.filters import Labelled
from guardfleet.verdicts.rendering import fields, json_object

Content = str | list[dict[str, str]]
Detections = Mapping[int, Mapping[str, Mapping[str, Any]]]  # by the text's place and the detector's name, as faces show them
NO_DETECTIONS: Detections = {}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader's position in partial results: the ordinal of a finished shard, and the last text seen in it."""

    ord: int = 0
    seq: int = -1


@dataclass(frozen=True, slots=True)
class Page:
    """Verdicts, the models that judged them by id, and the next cursor; with each one's text if `texts.beside` added it."""

    rows: list[StoredVerdict]
    models: Mapping[int, Model]
    reached: Cursor
    has_more: bool = False
    contents: Sequence[Content | None] | None = None
    decisions: Sequence[Decision | None] | None = None  # in force, a place for each row; None: no policy decided of any
    detections: Detections | None = None  # None: no detector was asked but the guard

    def decided(self) -> Iterator[Decision | None]:
        """Yield each verdict's decision."""
        return iter(self.decisions) if self.decisions is not None else repeat(None, len(self.rows))

    def of_actions(self, actions: Collection[str]) -> "Page":
        """Return it with those of its verdicts that have one of these actions; `contents` must not be there yet."""
        kept = [(row, one) for row, one in zip(self.rows, self.decided(), strict=True) if one is not None and one.action in actions]
        return replace(self, rows=[row for row, _ in kept], decisions=[one for _, one in kept])

    def of_labels(self, labelled: Labelled) -> "Page":
        """Return it with those of its verdicts of which the detector said one of these; `contents` must not be there yet.

        `labelled.detector`: as results name it.
        """
        said = NO_DETECTIONS if self.detections is None else self.detections
        kept = [
            (row, one)
            for row, one in zip(self.rows, self.decided(), strict=True)
            if (found := said.get(row.seq, {}).get(labelled.detector)) and (found["label"] or found["outcome"]) in labelled.labels
        ]
        decisions = None if self.decisions is None else [one for _, one in kept]
        return replace(self, rows=[row for row, _ in kept], decisions=decisions)

    def json_objects(self) -> Iterator[bytes]:
        """Yield each verdict as a JSON object."""
        said = NO_DETECTIONS if self.detections is None else self.detections
        return (
            json_object(row, self.models[row.model_id], one, said.get(row.seq))
            for row, one in zip(self.rows, self.decided(), strict=True)
        )

    def fields(self) -> Iterator[dict[str, Any]]:
        """Yield each verdict as a dictionary of fields."""
        said = NO_DETECTIONS if self.detections is None else self.detections
        return (
            fields(row, self.models[row.model_id], one, said.get(row.seq))
            for row, one in zip(self.rows, self.decided(), strict=True)
        )


def of_actions(pages: Iterable[Page], actions: Collection[str] | None) -> Iterator[Page]:
    """Yield each page with the verdicts for which the policy in force says one of these actions, maybe none; None: with all."""
    return iter(pages) if actions is None else (page.of_actions(actions) for page in pages)


def of_labels(pages: Iterable[Page], labelled: Labelled | None) -> Iterator[Page]:
    """Yield each page with the verdicts of which a detector said one of these labels, maybe none; None: with all."""
    return iter(pages) if labelled is None else (page.of_labels(labelled) for page in pages)

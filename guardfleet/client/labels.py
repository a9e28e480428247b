"""Labels and samples as all clients tell of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RANDOM: Sequence[str] = ("random",)  # the designs of a sample for which none is named


@dataclass
class LabelReport:
    """What became of labels: how many are new, how many were known, and which were refused, each with its `index` and a reason."""

    new: int = 0
    known: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)

    def add(self, new: int, known: int, refused: Iterable[Mapping[str, Any]]) -> None:
        """Add what became of the next ones."""
        before = self.new + self.known + len(self.refused)
        self.new += new
        self.known += known
        self.refused += [{**one, "index": before + one["index"]} for one in refused]


@dataclass(frozen=True)
class Sample:
    """A sample: how it was drawn, and its texts in random order, each with its verdict and its `inclusion_probability`."""

    about: Mapping[str, Any]
    texts: list[dict[str, Any]]

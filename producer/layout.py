"""Items of a reader, and the count of an input's physical lines."""

from dataclasses import dataclass
from typing import Any

Item = tuple[int, int, Any]  # first line, last line, and the row or the LineError that they hold


@dataclass
class Tally:
    """What became of a file's physical lines; `header + blank + taken + refused` are all of them."""

    header: int = 0
    blank: int = 0
    taken: int = 0  # a CSV row may span several
    refused: int = 0

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return self.header + self.blank + self.taken + self.refused

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.header + other.header, self.blank + other.blank, self.taken + other.taken, self.refused + other.refused)

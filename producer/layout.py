"""How an input is read: decided once, said once. And where its physical lines went."""

from dataclasses import dataclass
from typing import Any

Item = tuple[int, int, Any]  # first line, last line, and the row or the LineError that they are


@dataclass
class Tally:
    """Where the physical lines of a file went: `header + blank + taken + refused` are all of them."""

    header: int = 0
    blank: int = 0
    taken: int = 0  # a row of a CSV may have several
    refused: int = 0

    @property
    def lines(self) -> int:
        """All of them."""
        return self.header + self.blank + self.taken + self.refused

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.header + other.header, self.blank + other.blank, self.taken + other.taken, self.refused + other.refused)

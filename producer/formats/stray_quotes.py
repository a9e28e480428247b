"""Find rows that a stray quote may have swallowed: one quoted text of several lines that look like rows."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guardfleet.rows.columns import Columns

if TYPE_CHECKING:
    from producer.formats.header import Header

FIRST_TOLD = 5
SIGNS = 64  # of an id; longer cells are text


@dataclass
class Suspects:
    """Collects the lines of such rows."""

    header: "Header"
    columns: Columns
    told: list[str] = field(default_factory=list)  # a warning for each of the first ones
    n: int = 0

    def look(self, first: int, last: int, fields: list[str]) -> None:
        """Record the row of these lines if a line inside one of its fields has the shape of a row."""
        names, delimiter = self.header.names, self.header.delimiter
        mark = names.index(self.columns.id) if self.columns.id in names else 0
        mine = shape(fields[mark])
        if mine is None:
            return
        for text in fields:
            if "\n" not in text or delimiter not in text:
                continue
            for line in text.split("\n")[1:]:
                cells = line.rstrip("\r").split(delimiter)
                if len(cells) == len(names) and shape(cells[mark]) == mine:
                    self._note(first, last)
                    return

    def _note(self, first: int, last: int) -> None:
        self.n += 1
        if len(self.told) < FIRST_TOLD:
            self.told.append(f"lines {first}-{last} are one row, but lines in its text look like rows: is there a stray quote?")


def shape(cell: str) -> str | None:
    """Return an id's shape, without its letters and digits: equal for ids that one program made; None if it is no id."""
    if not cell or len(cell) > SIGNS or " " in cell.strip():
        return None
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip()))

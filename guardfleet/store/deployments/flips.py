"""What changed between two models: pure functions of the cells that were counted, for all who show them."""

from collections import Counter
from collections.abc import Mapping

from guardfleet.domain.verdict import GUARD
from guardfleet.store.deployments.comparisons import LABEL, SEVERITY, Cell

WHOLE = (SEVERITY, LABEL)  # subjects that each text counts under once
Cells = Mapping[Cell, int]


def kinds(detector: str) -> tuple[str, str]:
    """Return by what the flips of a detector are counted."""
    return ("category" if detector == GUARD else "label"), "language"


def by(cells: Cells, kind: str) -> dict[str, tuple[int, int]]:
    """Return by category or label (those that either model gave) or by language: texts, and how many of them changed."""
    texts, changed = Counter[str](), Counter[str]()
    for cell, n in cells.items():
        for name in _names(cell, kind):
            texts[name] += n
            changed[name] += n if cell.live != cell.candidate else 0
    return {name: (n, changed[name]) for name, n in texts.most_common()}


def changes(cells: Cells) -> dict[tuple[str, str], int]:
    """Return the texts by what both models said of them, most frequent first."""
    found = Counter[tuple[str, str]]()
    for cell, n in cells.items():
        if cell.subject in WHOLE:
            found[cell.live, cell.candidate] += n
    return dict(found.most_common())


def _names(cell: Cell, kind: str) -> set[str]:
    if kind == "language":
        return {cell.language} if cell.subject in WHOLE else set()
    if kind == "label":
        return {cell.live, cell.candidate}
    return set() if cell.subject in WHOLE else {cell.subject}

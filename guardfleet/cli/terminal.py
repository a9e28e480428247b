"""The one way to the terminal: results on stdout, progress and notes on stderr, and never text interpreted as markup."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from guardfleet.cli.output import printable

LEAST_CUT = 4  # characters
WIDEST = 100_000  # lists that do not go to a terminal are not cut
PLAIN = {"highlight": False, "markup": False, "emoji": False}

notes = Console(stderr=True, **PLAIN)  # type: ignore[arg-type]
answers = Console(**PLAIN)  # type: ignore[arg-type]
Part = str | tuple[str, str]  # with or without a style


def say(*parts: Part | Table, to: Console = notes) -> None:
    """Print a line made of these parts, or a table."""
    if len(parts) == 1 and isinstance(parts[0], Table):
        (to if to.is_terminal else Console(file=to.file, width=WIDEST, **PLAIN)).print(parts[0])  # type: ignore[arg-type]
        return
    to.print(_text([part for part in parts if not isinstance(part, Table)]), soft_wrap=True)


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """Show that something is in progress; yields a function that changes the text."""
    with notes.status(_text([text])) as status:
        yield lambda now: status.update(_text([now]))


def listed(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, to: Console, numbers: Sequence[str] = (), cut: str | None = None
) -> Table:
    """Build a list. No cell is cut or folded, except those of the column `cut` on a terminal that is too narrow."""
    cells = [[printable(cell, line_breaks=False) for cell in row] for row in rows]
    out = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    widths = [max(Text(row[at]).cell_len for row in [names, *cells]) for at in range(len(names))]
    others = sum(width + 1 for name, width in zip(names, widths, strict=True) if name != cut)
    room = to.width if to.is_terminal else WIDEST
    for name, width in zip(names, widths, strict=True):
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        fits = max(LEAST_CUT, room - others) if name == cut else width
        out.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=min(width, fits))
    for row in cells:
        out.add_row(*row)
    return out


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(f"guardfleet: {printable(text)}", file=sys.stderr)


def _text(parts: Sequence[Part]) -> Text:
    return Text.assemble(*(printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts))

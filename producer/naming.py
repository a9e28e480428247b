"""Match the columns asked for with the names in an input; a missing one is refused together with the names that exist."""

import difflib
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace

from guardfleet.errors import RejectedError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.conversations import CONVERSATIONS

# Names that texts often have elsewhere: suggested in a refusal, never assumed.
USUAL = ("content", "body", "comment", "message", "tweet", "post", "prompt", "sentence", "review", "input", "question", "title")
SHOWN_NAMES = 20
SHOWN_CHARACTERS = 40  # of a name: a file without a header has texts instead


class ColumnError(RejectedError):
    """A column that was asked for is not among those of the input, which are `names`; or it is unclear which one is meant."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = names


def resolve(asked: Columns, names: Sequence[str], source: str) -> Columns:
    """Return the columns under the names that `source` uses. Raises RejectedError for a missing one."""
    text = find(asked.text, names)
    if len(alike := _alike(asked.text, names)) > 1 and not asked.is_told:
        shown = " and ".join(_shown(name) for name in alike)
        raise ColumnError(f"{source} has columns named {shown}: choose the one to judge with --text-column NAME.", names)
    if text is None and (asked.text != AS_NAMED.text or not any(name in CONVERSATIONS for name in names)):
        raise _missing("--text-column", asked.text, names, source)
    row_id = find(asked.id, names)
    if row_id is None and asked.id != AS_NAMED.id:
        raise _missing("--id-column", asked.id, names, source)
    for name in asked.kept or ():
        if name not in names:
            raise _missing("--metadata-columns", name, names, source)
    return replace(asked, text=text or asked.text, id=row_id or asked.id)


def find(wanted: str, names: Collection[str]) -> str | None:
    """Return the matching name: the same one, else the only one that differs only in case or spaces."""
    if wanted in names:
        return wanted
    alike = _alike(wanted, names)
    return alike[0] if len(alike) == 1 else None


def _alike(wanted: str, names: Collection[str]) -> list[str]:
    return [name for name in names if name.strip().lower() == wanted.lower()]


def _missing(option: str, wanted: str, names: Sequence[str], source: str) -> ColumnError:
    shown = ", ".join(_shown(name) for name in names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    near = _nearest(wanted, [name for name in names if name.strip()])
    advice = f"Use {option} {shlex.quote(_shown(near))} to take that one" if near else f"Name it with {option} NAME"
    return ColumnError(f"{source} has no column named {wanted}. Its columns: {shown or 'none'}{more}. {advice}.", names)


def _nearest(wanted: str, names: Sequence[str]) -> str | None:
    """Return the name that was probably meant."""
    folded = {name.strip().lower(): name for name in names}
    alike = difflib.get_close_matches(wanted.lower(), folded, 1)
    within = [name for name in folded if wanted.lower() in name]
    usual = [name for name in USUAL if name in folded] if wanted == AS_NAMED.text else []
    found = [*alike, *within, *usual]
    return folded[found[0]] if found else None


def _shown(name: str) -> str:
    whole = name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…"
    return whole.strip().replace("\n", " ") or "(no name)"

"""A line that a reader has already refused, as a line of its own: HTTP clients send it in place of the refused one."""

from collections.abc import Mapping
from typing import Any

from guardfleet.errors import LineError

REFUSED = "guardfleet_refused"
MOST_LINES = 2**31 - 1
CODE_CHARACTERS, DETAIL_CHARACTERS = 64, 1000


def line_of(error: LineError) -> dict[str, Any]:
    """Return the line that stands for a refused one."""
    return {REFUSED: {"code": error.code, "detail": error.told, "lines": error.n_lines, "id": error.row_id}}


def refusal_of(line: int, value: object) -> LineError:
    """Return the error of such a line, the inverse of `line_of`; a malformed value is an error too."""
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    code, detail, n_lines = given.get("code"), given.get("detail"), given.get("lines")
    if not (_is_text(code, CODE_CHARACTERS) and _is_text(detail, DETAIL_CHARACTERS)):
        return LineError(line, "wrong_type", f"{REFUSED} must have a code and a detail")
    n = n_lines if type(n_lines) is int and 1 <= n_lines <= MOST_LINES else 1
    row_id = given.get("id")
    return LineError(line, str(code), str(detail), row_id if _is_text(row_id, 512) else None, last_line=line + n - 1)


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()

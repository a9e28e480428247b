"""How many values a JSON body holds, counted as it comes: brackets take a parser a hundred times as long as text."""

from api.http.problems import ProblemError

MOST_VALUES = 50_000  # 0.1 s for the parser on one slow core


class Values:
    """Counts those of one body. What an invalid one holds behind its mistake may be counted wrong: no parser comes so far."""

    def __init__(self) -> None:
        self._n, self._open = 1, b""  # of a string that goes on: its quote, and the escape that has begun

    def count(self, chunk: bytes) -> None:
        """Count those of the next bytes. Raises ProblemError where they are too many, or the bytes no UTF-8 of a JSON text."""
        if b"\0" in chunk:  # as UTF-16 and UTF-32 have it with each mark
            raise ProblemError(400, "invalid_json", "a JSON body is in UTF-8 and holds no NUL.")
        parts = (self._open + chunk).replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        is_open = len(parts) % 2 == 0
        self._open = b"" if not is_open else b'"\\' if parts[-1].endswith(b"\\") else b'"'
        marks = b"".join(parts[::2])
        self._n += sum(map(marks.count, (b",", b"[", b"{")))
        if self._n > MOST_VALUES:
            raise ProblemError(413, "too_many_values", f"a JSON body has at most {MOST_VALUES:,} values.")

"""Count the values of a JSON body as it arrives: brackets cost a parser a hundred times as much as text."""

from api.http.problems import ProblemError

MOST_VALUES = 50_000  # 0.1 s for the parser on one slow core


class Values:
    """Counts the values of one body. The count may be wrong after a syntax error, which no parser gets past."""

    def __init__(self) -> None:
        self._n, self._open = 1, b""  # of an unfinished string: its quote, and the escape that has begun

    def count(self, chunk: bytes) -> None:
        """Count the values of the next bytes. Raises ProblemError if there are too many, or if the bytes are not UTF-8."""
        if b"\0" in chunk:  # as in the marks of UTF-16 and UTF-32
            raise ProblemError(400, "invalid_json", "a JSON body must be in UTF-8, without a NUL.")
        parts = (self._open + chunk).replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        is_open = len(parts) % 2 == 0
        self._open = b"" if not is_open else b'"\\' if parts[-1].endswith(b"\\") else b'"'
        marks = b"".join(parts[::2])
        self._n += sum(map(marks.count, (b",", b"[", b"{")))
        if self._n > MOST_VALUES:
            raise ProblemError(413, "too_many_values", f"a JSON body may have at most {MOST_VALUES:,} values.")

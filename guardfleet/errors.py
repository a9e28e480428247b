"""The one error tree: what a caller can do about a failure decides its class."""

from typing import Self


class GuardfleetError(Exception):
    """Anything guardfleet raises on purpose; its message is a sentence for the user."""


class RetryableError(GuardfleetError):
    """Nothing was lost; the same call may succeed later (a service is away, a lease was lost)."""


class RejectedError(GuardfleetError):
    """The input is at fault; the same call will fail again. `param`: which of a request's parameters it is, where that is known."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFoundError(RejectedError):
    """The named thing does not exist for this tenant."""


class AwayError(RetryableError):
    """A service does not do its work now. Anybody may be told `service`; `str()`, which can name hosts and users, is for logs."""

    def __init__(self, service: str, detail: str) -> None:
        super().__init__(detail)
        self.service = service


class OverloadedError(RetryableError):
    """Refused at the door; `retry_after_s` says when to come back."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConfigurationError(GuardfleetError):
    """A setting, a file or the machine is not as it must be; the process does not start."""


class StatementError(GuardfleetError):
    """PostgreSQL refused a statement: a defect of ours, or a value that it cannot hold. Says which rule, never a value."""

    def __init__(self, message: str, *, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class FatalError(GuardfleetError):
    """The process cannot go on: its supervisor is to start a fresh one."""


class DrainingError(RetryableError):
    """The engine is shutting down and hands the work back untouched."""


class ContentError(RejectedError):
    """What a row holds cannot be taken as it is; `code` is one of LineError's, `detail` quotes no text."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code, self.detail = code, detail


class LineError(RejectedError):
    """Input lines are unusable, one as a rule; the rest of the file goes on.

    `code` is stable: `invalid_json`, `wrong_type`, `missing_text`, `invalid_id`, `duplicate_id`, `invalid_metadata`, `invalid_csv`,
    `invalid_encoding`, `damaged`, `too_large`, `url_mismatch`, `repeated_key`, `unknown_role`, `unknown_member`,
    `unsupported_content`, `already_judged`. `row_id` is the line's id, where it had a usable one. `last_line` ends the range that
    is refused with it; `place` is where that is, if there are several inputs.
    """

    def __init__(
        self,
        line: int,
        code: str,
        detail: str,
        row_id: str | None = None,
        *,
        last_line: int | None = None,
        place: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.line, self.code, self.detail, self.row_id = line, code, detail, row_id
        self.last_line, self.place = last_line or line, place

    def __str__(self) -> str:
        many = f"lines {self.line}-{self.last_line}" if self.last_line > self.line else f"line {self.line}"
        return f"{self.place or many}: {self.detail} ({self.code})"

    def kept(self) -> Self:
        """Itself, to be held: without the frames that it was raised in, each of which holds it and what it was raised for."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self

    @property
    def told(self) -> str:
        """The detail with its place, where there are several inputs."""
        return f"{self.place}: {self.detail}" if self.place else self.detail

    @property
    def n_lines(self) -> int:
        """How many lines it refuses."""
        return self.last_line - self.line + 1

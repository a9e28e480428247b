"""The one error tree. An error's class says what the caller can do about it."""

from typing import Self


class GuardfleetError(Exception):
    """Base of all errors that guardfleet raises on purpose; the message is a sentence for the user."""


class RetryableError(GuardfleetError):
    """Nothing was lost; the same call may succeed later (a service is down, a lease was lost)."""


class RejectedError(GuardfleetError):
    """The input is at fault; the same call will fail again. `param` names the request's parameter, if known."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFoundError(RejectedError):
    """The named thing does not exist for this tenant."""


class AwayError(RetryableError):
    """A service is unavailable. `service` may be told to anybody; `str()`, which can name hosts and users, is for logs."""

    def __init__(self, service: str, detail: str) -> None:
        super().__init__(detail)
        self.service = service


class OverloadedError(RetryableError):
    """The request was refused because of load; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConfigurationError(GuardfleetError):
    """A setting, a file or the machine is not as required; the process does not start."""


class NoRoomError(ConfigurationError):
    """The model does not fit on the device as full as it is now; on an empty one it may."""


class StatementError(GuardfleetError):
    """PostgreSQL refused a statement: a defect of ours, or a value it cannot store. Names the rule, never a value."""

    def __init__(self, message: str, *, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class FatalError(GuardfleetError):
    """The process cannot go on: its supervisor must start a new one."""


class DrainingError(RetryableError):
    """The engine is shutting down and returns the work untouched."""


class ContentError(RejectedError):
    """A row's content cannot be accepted; `code` is one of LineError's, `detail` quotes no text."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code, self.detail = code, detail


class LineError(RejectedError):
    """Input lines, usually one, are unusable; the rest of the file goes on.

    `code` is stable: `invalid_json`, `wrong_type`, `missing_text`, `invalid_id`, `duplicate_id`, `invalid_metadata`, `invalid_csv`,
    `invalid_encoding`, `damaged`, `too_large`, `url_mismatch`, `repeated_key`, `unknown_role`, `unknown_member`,
    `unsupported_content`, `already_judged`, `text_gone`. `row_id` is the line's id, if it has a usable one. `last_line` ends the
    refused range; `place` says where it is if there are several inputs.
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
        """Return the error without its traceback and causes, whose frames would keep the input alive."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self

    @property
    def told(self) -> str:
        """The detail, with its place if there are several inputs."""
        return f"{self.place}: {self.detail}" if self.place else self.detail

    @property
    def n_lines(self) -> int:
        """How many lines the error refuses."""
        return self.last_line - self.line + 1

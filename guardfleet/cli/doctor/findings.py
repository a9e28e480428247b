"""A check, and what it found. A check returns what is well, returns a Caution, or raises; it never prints."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from guardfleet.errors import ConfigurationError


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # guardfleet works, but not as it should
    FAILED = "failed"  # something would not start or not work, or it is not known whether it would


class Pitfall(StrEnum):
    """The five things that usually go wrong when this model is deployed (docs/doctor.md)."""

    MEMORY = "memory"
    MODEL_PATH = "model path"
    PORT = "port or firewall"
    VERSIONS = "dependency versions"
    LONG_INPUT = "over-long input"


@dataclass(frozen=True, slots=True)
class Caution:
    """What works, but deserves a warning. `fix`: what to do, if it is not what the check always advises."""

    said: str
    fix: str | None = None


class TroubleError(ConfigurationError):
    """What would not work, and what to do about it."""

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(said)
        self.fix = fix


Look = Callable[[], str | Caution]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `look` raises a GuardfleetError if it would not work.

    `fix` is what to do then, unless the error knows better. `after`: earlier checks of the same chain, without whose success this
    one has nothing to look at and is left out. `slow`: what usually takes its time, if it is not somebody else's answer.
    """

    name: str
    look: Look
    fix: str
    pitfall: Pitfall | None = None
    after: tuple[str, ...] = ()
    slow: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check said; `fix` is None if there is nothing to do."""

    name: str
    status: Status
    said: str
    fix: str | None = None
    pitfall: Pitfall | None = None

    @classmethod
    def of(cls, check: Check, status: Status, said: str, fix: str | None = None) -> "Finding":
        """Return the finding of a check, with the check's own advice if there is no better."""
        return cls(check.name, status, said, None if status is Status.OK else fix or check.fix, check.pitfall)

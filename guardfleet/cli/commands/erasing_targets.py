"""What `guardfleet erase` and `guardfleet hold` are told to look for: options, and files with a value a line."""

import pathlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guardfleet.domain.targets import MOST, Scalar, Targets, subjects_of
from guardfleet.errors import RejectedError
from guardfleet.jobs.asked import Asked

BOM, MARK = b"\xef\xbb\xbf", "\ufeff"
BLANK = "begins or ends with a blank, which an id or a value can have too: take it away, or give the value as an option."
Named = tuple[str, Scalar] | str  # a subject, or an id


@dataclass(frozen=True, slots=True)
class What:
    """What the options name."""

    ids: Sequence[str]
    subjects: Sequence[str]
    ids_from: str | None
    subjects_from: str | None
    job: str | None

    @property
    def is_nothing(self) -> bool:
        """Whether no option names anything."""
        return not (self.ids or self.subjects) and self.ids_from is None and self.subjects_from is None and self.job is None

    def pieces(self, tenant_id: int) -> list[Asked]:
        """Read the files and return what is meant, in pieces that can be taken at once. Raises RejectedError, which says where."""
        named = list({repr(one): one for one in self._named(tenant_id)}.values())  # 1 and true are two
        pieces = [named[at : at + MOST] for at in range(0, len(named), MOST)]
        return [Asked(tenant_id, _targets(piece), self.job) for piece in pieces or [[]]]

    def _named(self, tenant_id: int) -> Iterator[Named]:
        for place, text in _given("--id", self.ids, self.ids_from):
            yield from self._checked(tenant_id, place, [text])
        for place, text in _given("--subject", self.subjects, self.subjects_from):
            try:
                found = subjects_of(text)
            except RejectedError as error:
                raise RejectedError(f"{place}: {error}") from None
            if place != "--subject" and any(part != part.strip() for part in text.partition("=")):
                raise RejectedError(f"{place}: the key or the value {BLANK}")
            yield from self._checked(tenant_id, place, found)

    def _checked(self, tenant_id: int, place: str, named: Sequence[Named]) -> Sequence[Named]:
        try:
            Asked(tenant_id, _targets(named), self.job)
        except RejectedError as error:
            raise RejectedError(f"{place}: {error}") from None
        return named


def _targets(named: Sequence[Named]) -> Targets:
    return Targets.of([one for one in named if isinstance(one, str)], [one for one in named if not isinstance(one, str)])


def _given(option: str, values: Sequence[str], name: str | None) -> Iterator[tuple[str, str]]:
    """Yield each value with the place where it was given."""
    yield from ((option, value) for value in values)
    if name is None:
        return
    lines = list(_lines(name))
    if not lines:
        raise RejectedError(f"{name} names nobody: it has no line.")
    yield from lines


def _lines(name: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file that are not empty. They end at LF or CRLF alone: values can hold what ends lines elsewhere."""
    raw = sys.stdin.buffer.read() if name == "-" else pathlib.Path(name).read_bytes()
    for number, line in enumerate(raw.removeprefix(BOM).split(b"\n"), 1):
        place = f"{name}, line {number}"
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise RejectedError(f"{place} is not UTF-8.") from None
        if text != text.strip() or text.startswith(MARK):
            raise RejectedError(f"{place} {BLANK}")
        if text:
            yield place, text

"""Several files, folders and patterns as one input, in a stable order and numbered through."""

import glob
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from guardfleet.errors import RejectedError
from producer.detection import PACKED, SUFFIXES, suffix_of
from producer.layout import Tally
from producer.readers import AS_FOUND, Input, Numbered, Reading
from producer.text.decompression import STDIN, comes_once, identity_of, shown

HIDDEN = (".", "_")  # names that begin so are not data: .crc, _SUCCESS


class Inputs:
    """Everything that makes up one job, inspected before it is read. Raises RejectedError if a file cannot be read.

    `left_out`: files in folders that are not data by their names. `warnings` and `tally` are known once everything was read.
    """

    def __init__(self, sources: str | Sequence[str], reading: Reading = AS_FOUND, *, max_text_bytes: int) -> None:
        self._reading, self._max_text_bytes = reading, max_text_bytes
        self.paths, self.left_out = expanded([sources] if isinstance(sources, str) else sources)
        self.warnings: list[str] = []
        self.tally = Tally()
        self._held: dict[str, Input] = {}  # inspected but not read yet: streams, and a single file
        self._how: Counter[str] = Counter()
        try:
            for path in self.paths:
                looked = self._open(path)
                self._how[looked.how] += 1
                if len(self.paths) == 1 or comes_once(path):
                    self._held[path] = looked
                else:
                    looked.close()
        except BaseException:
            self.close()
            raise

    @property
    def is_repeatable(self) -> bool:
        """Whether the input can be read again."""
        return not any(comes_once(path) for path in self.paths)

    @property
    def name(self) -> str:
        """The name of a job made from it."""
        first = shown(pathlib.PurePath(self.paths[0]).name)
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"

    @property
    def said(self) -> str:
        """One line that says how the input is read."""
        if len(self.paths) == 1:
            found = f"reading {'standard input' if self.paths == [STDIN] else self.paths[0]}: {next(iter(self._how))}"
        else:
            found = f"reading {len(self.paths)} files: " + "; ".join(f"{n} {how}" for how, n in self._how.items())
        names = ", ".join(pathlib.PurePath(path).name for path in self.left_out[:3])
        more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""  # noqa: PLR2004 - number of names shown
        return f"{found}; left out: {names}{more}" if self.left_out else found

    def rows(self) -> Iterator[Numbered]:
        """Yield every row of every file, numbered through; with several files, errors name theirs."""
        before = 0
        self.warnings, self.tally = [], Tally()
        for path in self.paths:
            source = self._take(path)
            place = shown(path) if len(self.paths) > 1 else None
            last = before
            for last, row in source.rows(before=before, place=place):
                yield last, row
            before = max(last, before + source.tally.lines)
            self.tally += source.tally
            self.warnings += [f"{place}: {warning}" if place else warning for warning in source.warnings]

    def values(self) -> Iterator[tuple[str, int, Any]]:
        """Yield every row as it was read, or its LineError, with its file and its line there."""
        for path in self.paths:
            source = self._take(path)
            for first, _, value in source.values():
                yield source.name, first, value

    def close(self) -> None:
        """Close what was opened and not read."""
        while self._held:
            self._held.popitem()[1].close()

    def _take(self, path: str) -> Input:
        """Return the opened input. Raises RejectedError for a stream that was read already: it would seem empty, or hang."""
        held = self._held.pop(path, None)
        if held is None and comes_once(path):
            raise RejectedError(f"{path} is a stream and was read already.")
        return held or self._open(path)

    def _open(self, path: str) -> Input:
        return Input(path, self._reading, max_text_bytes=self._max_text_bytes)


def expanded(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files that are meant, and those of folders that are left out. Raises RejectedError if there are none."""
    paths: list[str] = []
    left_out: list[str] = []
    for source in sources:
        path = pathlib.Path(source)
        if not source:
            raise RejectedError("the name of an input is empty.")
        if source != STDIN and path.is_dir():
            taken, others = _within(path)
            if not taken:
                raise RejectedError(f"{source} has no file with a known suffix: {', '.join(sorted(SUFFIXES))}.")
        elif source != STDIN and glob.has_magic(source) and not path.exists():
            taken, others = _matching(source)
            if not taken:
                raise RejectedError(f"no file matches {source}.")
        else:
            taken, others = [source], []
        paths += taken
        left_out += others
    if len(paths) > 1:
        _refuse_twice(paths)
    return paths, left_out


def _refuse_twice(paths: Sequence[str]) -> None:
    names: dict[object, str] = {}
    for path in paths:
        identity = identity_of(path)
        if identity in names:
            first = names[identity]
            raise RejectedError(f"{path} is given twice{'' if first == path else f', also as {first}'}.")
        names[identity] = path


def _matching(pattern: str) -> tuple[list[str], list[str]]:
    """Return what a pattern matches, with the files in matched folders; and what is left out there or has a hidden name."""
    shown = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns too
    hidden = sorted(set(glob.glob(pattern, recursive=True, include_hidden=True)).difference(shown))  # noqa: PTH207
    taken, others = _of_each(shown)
    also, more = _of_each(hidden)
    left_out = [*others, *(path for path in (*also, *more) if _is_data(pathlib.Path(path)))]
    return taken, [path for path in dict.fromkeys(left_out) if path not in set(taken)]


def _of_each(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return these files and those in these folders, each once, even if several folders hold it."""
    taken: dict[str, None] = {}
    others: dict[str, None] = {}
    for path in map(pathlib.Path, names):
        inner, left_out = _within(path) if path.is_dir() else ([str(path)], [])
        taken |= dict.fromkeys(inner)
        others |= dict.fromkeys(left_out)
    return list(taken), list(others)


def _within(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Return the files in a folder and below, sorted: those that are read, and the others except hidden ones that are not data."""
    taken: list[pathlib.Path] = []
    others: list[pathlib.Path] = []
    for where, folders, names in os.walk(folder, onerror=_unreadable):
        files = [pathlib.Path(where, name) for name in names]
        linked = [path for path in (pathlib.Path(where, name) for name in folders) if path.is_symlink()]  # not followed
        for path in (*files, *linked):
            is_hidden = any(part.startswith(HIDDEN) for part in path.relative_to(folder).parts)
            if path.is_file() and _is_data(path) and not is_hidden:
                taken.append(path)
            elif _is_data(path) or not is_hidden:
                others.append(path)
    return [str(path) for path in sorted(taken)], [str(path) for path in sorted(others)]


def _is_data(path: pathlib.Path) -> bool:
    """Return whether a file of this name is read."""
    return suffix_of(path.name) in SUFFIXES or (path.suffix in PACKED and not suffix_of(path.name))


def _unreadable(error: OSError) -> None:
    raise RejectedError(f"{error.filename} cannot be read: {error.strerror}.") from error

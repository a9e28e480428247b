"""Where a command writes its output: checked before anything is read, never an input, replaced only when it is complete."""

import os
import pathlib
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from guardfleet.errors import RejectedError

STANDARD = "-"  # input or output


def rejected_beside(path: str) -> str | None:
    """Return where refused lines go; None if nothing can stand beside the path: standard output, a pipe, a device."""
    return f"{path}.rejected.jsonl" if path != STANDARD and _is_file(path) else None


def require_writable(path: str) -> None:
    """Raise RejectedError unless the path can be written. Changes nothing, and opens no pipe: its reader would see its end."""
    if path == STANDARD:
        return
    if not path:
        raise RejectedError("the name of the output file is empty.")
    if os.path.isdir(path):  # noqa: PTH112 - as in the rest of this module: the system resolves the names
        raise RejectedError(f"{path} is a folder: name a file to write to.")
    try:
        if os.path.exists(path) and not os.access(path, os.W_OK):  # noqa: PTH110
            raise PermissionError(0, "Permission denied")
        if _is_file(path):
            part, descriptor = _part(_place(path))
            os.close(descriptor)
            part.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def require_apart(outputs: Iterable[str], inputs: Sequence[str]) -> None:
    """Raise RejectedError if an output is the same file as an input, under any name, links included."""
    read = {identity: path for path in inputs if (identity := _identity(path, sys.stdin))}
    for path in outputs:
        if (identity := _identity(path, sys.stdout)) in read:
            first = read[identity]
            also = "" if first == path else f" ({first})"
            raise RejectedError(f"{path} is an input{also} and would be overwritten: name another output file.")


@contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """Yield a file that replaces the target once it is written completely, and keeps the target's mode; removed on failure.

    Links are followed. Anything but a regular file (standard output, a pipe, a device) is written directly. Raises
    RejectedError, except for errors of standard output.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        if not _is_file(path):
            with open(path, "wb") as file:  # noqa: PTH123
                yield file
            return
        target = _place(path)
        part, descriptor = _part(target)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_file(path: str) -> bool:
    """Return whether the path is a regular file, or can become one."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return True  # creating it will raise the reason


def _place(path: str) -> pathlib.Path:
    return pathlib.Path(os.path.realpath(path))


def _part(target: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Create a new file beside the target, open for writing. A killed command leaves its own behind, which disturbs nobody."""
    part = target.with_name(f"{target.name}.part{secrets.token_hex(4)}")
    found = target.stat() if target.exists() else None
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if found is None else 0o600)
    if found is not None:
        with suppress(PermissionError):  # of another user, and we are not root
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, found.st_mode & 0o777)
    return part, descriptor


def _identity(path: str, standard: object) -> tuple[int, int] | None:
    """Return what all names of one regular file share; None for anything else, which has no content to lose."""
    try:
        found = os.fstat(standard.fileno()) if path == STANDARD else os.stat(path)  # type: ignore[attr-defined]  # noqa: PTH116
    except (OSError, ValueError, AttributeError):  # does not exist; or is closed, or is not a system file
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _unwritable(path: str, error: OSError) -> RejectedError:
    return RejectedError(f"{path} cannot be written: {error.strerror or error}.")

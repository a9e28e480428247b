"""Names of versions: `name@version`, of policies and of lists."""

from guardfleet.errors import RejectedError

MOST_DIGITS = 9


class NotNewestError(RejectedError):
    """A version would be stored on top of one that is no longer the newest; `newest` is."""

    def __init__(self, newest: str) -> None:
        super().__init__(f"{newest} was stored meanwhile: compare it with what you have, and save again.")
        self.newest = newest


def label_of(name: str, version: int) -> str:
    """Return how a version is named everywhere."""
    return f"{name}@{version}"


def name_of(label: str) -> str:
    """Return the name of a version, the inverse of `label_of` without the version."""
    return label.rpartition("@")[0]


def parse(label: str, kind: str) -> tuple[str, int | None]:
    """Return the name and the version of a label; None: it names none. Raises RejectedError, which says `kind`."""
    name, _, version = label.partition("@")
    if "\0" in name or (version and not (version.isascii() and version.isdecimal() and len(version) <= MOST_DIGITS)):
        raise RejectedError(f"{label!r} names no {kind}: give NAME or NAME@VERSION.", param=kind)
    return name, int(version) if version else None

"""Names of versions: `name@version`, of policies and of lists."""

from guardfleet.errors import RejectedError

MOST_DIGITS = 9


def label_of(name: str, version: int) -> str:
    """Return how a version is named everywhere."""
    return f"{name}@{version}"


def name_of(label: str) -> str:
    """Return the name of a version, the inverse of `label_of` without the version."""
    return label.rpartition("@")[0]


def parse(label: str, kind: str) -> tuple[str, int | None]:
    """Return the name and the version of a label; None: it names none. Raises RejectedError, which says `kind`."""
    name, _, version = label.partition("@")
    if version and not (version.isascii() and version.isdecimal() and len(version) <= MOST_DIGITS):
        raise RejectedError(f"{label!r} names no {kind}: give NAME or NAME@VERSION.", param=kind)
    return name, int(version) if version else None

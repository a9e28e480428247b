"""What makes two submissions the same: the input's bytes, and what is asked of it."""

import hashlib
import pathlib
from collections.abc import Sequence

from guardfleet.errors import RejectedError


def fingerprint(source: str, asked: Sequence[object]) -> bytes | None:
    """32 bytes; None for standard input, which comes once. Raises RejectedError for a file that cannot be read."""
    if source == "-":
        return None
    try:
        with pathlib.Path(source).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise RejectedError(f"{source} cannot be read: {error.strerror}.") from error
    digest.update(repr(asked).encode())
    return digest.digest()

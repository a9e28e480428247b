"""What makes two submissions the same: the input's bytes, and what is asked of it.

The key is SHA-256 over the input's bytes followed by a canonical form of what is asked: JSON with sorted names, no spaces, in which
what was not asked for is left out. So a release that knows more to ask gives old commands their old keys, and a submit that was cut
off before an upgrade goes on after it. docs/resume.md lists the names.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from guardfleet.errors import RejectedError

FORM = 1  # raised where a name is to mean something else
# What is as if it had not been asked for. Constants of the form, whatever the defaults of a release are.
UNASKED: Mapping[str, Any] = {
    "strict": False,
    "interactive": False,
    "priority": 0,
    "reuse": True,
    "again": False,
    "sure": 0.9,
    "sample": 0.01,
}


def fingerprint(paths: Sequence[str], command: str, asked: Mapping[str, Any]) -> bytes | None:
    """32 bytes; None with standard input or a pipe, which come once. Raises RejectedError for a file that cannot be read."""
    from producer.text.decompression import comes_once

    if any(comes_once(path) for path in paths):
        return None
    whole = hashlib.sha256()
    for path in paths:
        try:
            with pathlib.Path(path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise RejectedError(f"{path} cannot be read: {error.strerror}.") from error
        whole.update(digest.digest())
    if len(paths) > 1:
        digest = whole
    digest.update(canonical(command, asked))
    return digest.digest()


def canonical(command: str, asked: Mapping[str, Any]) -> bytes:
    """What is asked, as bytes that depend on nothing else. Values are what JSON has: TypeError for anything else."""
    said = {name: value for name, value in asked.items() if value is not None and value != UNASKED.get(name)}
    return json.dumps(
        {"form": FORM, "command": command, "asked": said}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()

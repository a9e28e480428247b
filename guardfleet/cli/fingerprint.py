"""The resume key of a submission: the input's bytes, and the options it was given.

The key is SHA-256 over the input's bytes followed by the options in canonical form: JSON with sorted names and no spaces, without
options that were not given. So a release with new options gives old commands their old keys, and resumes a submit that was
interrupted before an upgrade. docs/resume.md lists the names.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from guardfleet.errors import RejectedError

FORM = 1  # raised when a name changes its meaning
# Values that count as not given. Constants of the form, whatever a release's defaults are.
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
    """Return 32 bytes; None for standard input or a pipe, which come only once. Raises RejectedError for an unreadable file."""
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
    """Return the options as bytes that depend on nothing else. Values must be JSON's: TypeError otherwise."""
    said = {name: value for name, value in asked.items() if value is not None and value != UNASKED.get(name)}
    return json.dumps(
        {"form": FORM, "command": command, "asked": said}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()

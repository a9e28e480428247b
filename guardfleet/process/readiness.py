"""Tell a process's parent that it is ready to work: one byte through an inherited pipe."""

import os
from contextlib import suppress

DESCRIPTOR = "READY_FD"  # environment variable with the descriptor's number


def say_ready() -> None:
    """Tell the parent, if it asked to be told. Processes that this one starts must not answer for it."""
    descriptor = os.environ.pop(DESCRIPTOR, None)
    if descriptor is None:
        return
    with suppress(OSError, ValueError), os.fdopen(int(descriptor), "wb") as pipe:
        pipe.write(b"1")

"""End a process with its parent: it holds one end of a pipe whose other end closes whatever way the parent ended."""

import os
import signal
import threading
import time

DESCRIPTOR = "PARENT_FD"  # environment variable with the descriptor's number
PATIENCE_S = 30.0  # to finish after SIGTERM


def end_with_parent() -> None:
    """Watch for the parent's end, if it asked for that. Processes that this one starts do not inherit the watch."""
    descriptor = os.environ.pop(DESCRIPTOR, None)
    if descriptor is not None:
        threading.Thread(target=_watch, args=(int(descriptor),), name="parent", daemon=True).start()


def _watch(descriptor: int) -> None:
    try:
        os.read(descriptor, 1)  # nothing is ever written
    except OSError:
        return  # not inherited: a program in between passed on only its environment
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)

"""A process ends with the one that started it: it holds one end of a pipe, whose other end closes however that one went."""

import os
import signal
import threading
import time

DESCRIPTOR = "PARENT_FD"  # the name of the variable that says which one
PATIENCE_S = 30.0  # for what SIGTERM lets it finish


def end_with_parent() -> None:
    """Watch for the end of whoever started this process, if that asked for it. What this process starts itself is not watched."""
    descriptor = os.environ.pop(DESCRIPTOR, None)
    if descriptor is not None:
        threading.Thread(target=_watch, args=(int(descriptor),), name="parent", daemon=True).start()


def _watch(descriptor: int) -> None:
    try:
        os.read(descriptor, 1)  # nothing is ever written
    except OSError:
        return  # it was not handed down: by a program that only passed on its environment
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)

"""What SIGTERM and Ctrl-C do."""

import signal
import threading
from collections.abc import Callable


def on_termination(stop: Callable[[], object]) -> None:
    """Call `stop` at each SIGTERM and SIGINT, in a thread of its own.

    A handler runs within the main thread, wherever that is: one that sets an Event for which the main thread waits may come while
    the Event's lock is held, and wait for it for ever (4 of 60 processes that got three signals at once).
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=stop, name="stop", daemon=True).start())

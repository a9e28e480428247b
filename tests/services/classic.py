"""guardfleet with classic queues, the only ones that show the reconnect deadlock: `python -m tests.services.classic worker`."""

from typing import Any

from kombu import Exchange, Queue

from guardfleet.broker import celery_app
from guardfleet.cli import main


def classic(name: str, *_: Any, **__: Any) -> Queue:
    """A durable classic queue."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


if __name__ == "__main__":
    celery_app._queue = classic
    main()

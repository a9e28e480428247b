"""guardfleet with little patience and, where BUSY asks for it, a busy interpreter: `python -m tests.services.impatient worker`.

Redis redelivers a message after a second, RabbitMQ drops a connection after two seconds without a heartbeat; in a busy interpreter,
one thread never releases the GIL by itself.
"""

import os
import threading
from typing import Any

from guardfleet.broker import celery_app
from guardfleet.cli import main
from guardfleet.settings import Settings

HEARTBEAT_S = 1
VISIBILITY_TIMEOUT_S = 1
BUSY = "BUSY_INTERPRETER"  # an environment variable

make_app, redis_options = celery_app.make_app, celery_app._redis_options


def impatient_app(settings: Settings, name: str, **rest: Any) -> Any:
    """The application, with its heartbeat. What it imported until then is imported without a hog beside it."""
    if BUSY in os.environ:
        threading.Thread(target=hog, daemon=True).start()
    app = make_app(settings, name, **rest)
    app.conf.update(broker_heartbeat=HEARTBEAT_S, visibility_timeout=VISIBILITY_TIMEOUT_S)
    return app


def impatient_options(namespace: str) -> dict[str, Any]:
    """Redis' options, checking for unacknowledged messages every second."""
    return redis_options(namespace) | {"visibility_timeout": VISIBILITY_TIMEOUT_S, "unacked_restore_interval": 1}


def hog() -> None:
    """Keep the GIL busy."""
    while True:
        pass


if __name__ == "__main__":
    celery_app.make_app = impatient_app
    celery_app._redis_options = impatient_options
    main()

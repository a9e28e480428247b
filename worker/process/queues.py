"""Which queues a worker consumes, changed while it runs: another model may have others, a process without a model has none."""

from collections.abc import Sequence
from typing import Any

from celery import Celery, bootsteps
from kombu import Consumer

TURN_S = 0.2  # between two looks of Celery's loop


def turn(consumer: Consumer, app: Celery, wanted: Sequence[str]) -> None:
    """Have the consumer consume exactly these queues. What was delivered stays with it. Call it in the connection's own thread."""
    for name in [queue.name for queue in consumer.queues if queue.name not in wanted]:
        consumer.cancel_by_queue(name)
    new = [name for name in wanted if not consumer.consuming_from(name)]
    for name in new:
        consumer.add_queue(app.amqp.queues[name])
    if new:
        consumer.consume()


class BulkQueues:
    """The queues of Celery's consumer, which only its loop may touch: what is wanted takes effect at its next look."""

    def __init__(self, app: Celery, queues: Sequence[str]) -> None:
        self._app, self._wanted = app, queues

    def consume(self, queues: Sequence[str]) -> None:
        """Consume these queues from now on, in place of any others; the application knows them."""
        self._wanted = queues

    def step(self) -> type[bootsteps.StartStopStep]:
        """Return a consumer step that looks from the consumer's timer; a reconnect clears the timer and restarts the steps."""
        look = self._look

        class Look(bootsteps.StartStopStep):
            requires = ("celery.worker.consumer.tasks:Tasks",)

            def start(self, consumer: Any) -> None:
                consumer.timer.call_repeatedly(TURN_S, look, (consumer,))

        return Look

    def _look(self, consumer: Any) -> None:
        if consumer.task_consumer is not None and consumer.task_consumer.on_message is not None:  # Celery's loop has begun
            turn(consumer.task_consumer, self._app, self._wanted)

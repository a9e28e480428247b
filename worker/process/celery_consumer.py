"""Celery's consumer without native delayed delivery, which makes 28 quorum queues for ETA messages that are never sent."""

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):
    """Named in `worker_consumer`."""

    class Blueprint(CeleryConsumer.Blueprint):
        """The same steps but one."""

        default_steps = [step for step in CeleryConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")]  # noqa: RUF012

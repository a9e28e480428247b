"""Celery's consumer without native delayed delivery, which declares 28 quorum queues for ETA messages that are never sent."""

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):
    """The consumer that `worker_consumer` names."""

    class Blueprint(CeleryConsumer.Blueprint):
        """Celery's steps without delayed delivery."""

        default_steps = [step for step in CeleryConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")]  # noqa: RUF012

"""The one Celery configuration: messages, and the settings that keep them from getting lost, each with its reason."""

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from amqp.exceptions import AMQPError, NotFound, PreconditionFailed
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError, OperationalError
from redis.exceptions import RedisError

from guardfleet.domain.lanes import Lane, Queues
from guardfleet.errors import AwayError, ConfigurationError
from guardfleet.settings import Settings

MESSAGE_VERSION = 1
MODERATE, DELIVER = "guardfleet.moderate", "guardfleet.deliver"
DELIVERY_LIMIT = 20  # for failures before the claim; a drain's requeues count too, so it is not small
VISIBILITY_TIMEOUT_S = 300  # Redis redelivers a message after this silence; leases make that harmless
MISSING_QUEUE = (NotFound, ChannelError)
BROKER_DOWN = (OperationalError, AMQPError, RedisError, OSError)
ANSWER_S = 5.0  # after this a broker that accepts bytes and answers nothing counts as down: half-open, frozen, memory alarm
REFUSED = (403, 530)  # AMQP codes: wrong user or password; a virtual host that does not exist or is not this user's


def speaks_redis(url: str) -> bool:
    """Return whether the broker's URL is Redis or Valkey, by TCP, TLS or a socket; otherwise it is RabbitMQ."""
    return url.startswith("redis")


def is_newer(message: Mapping[str, Any]) -> bool:
    """Return whether the message has a newer version than this code: during an upgrade, workers of both share a queue."""
    version = message.get("v")
    return isinstance(version, int) and version > MESSAGE_VERSION


def make_app(settings: Settings, name: str, *, model: str | None = None) -> Celery:
    """Build the configured application, with the queues of `model`'s work if given; does not connect yet."""
    url = settings.required("broker_url")
    is_redis = speaks_redis(url)
    app = Celery(name, broker=url, set_as_current=False)
    queues = Queues.of(settings.namespace)
    named = [queues.of_model(lane, model) for lane in Lane] if model else []
    app.conf.update(
        task_queues=[_queue(queue, queues, is_redis=is_redis) for queue in (*queues.lanes, queues.webhooks, *named)],
        task_default_queue=queues.lanes[0],
        task_default_exchange=queues.lanes[0],
        task_default_exchange_type="direct",
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,  # acknowledge after the commit
        task_reject_on_worker_lost=True,
        task_ignore_result=True,  # results are rows
        worker_prefetch_multiplier=1,  # hold only what runs
        worker_enable_prefetch_count_reduction=False,  # True deadlocked the threads pool after a reconnect in 6 of 8 runs
        worker_cancel_long_running_tasks_on_connection_loss=False,  # threads cannot be cancelled; leases hold off the second copy
        broker_channel_error_retry=True,  # otherwise one channel error (READONLY, consumer timeout) ends the worker
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up for good after 100
        broker_heartbeat=30,
        broker_transport_options=_redis_options(settings.namespace) if is_redis else {"confirm_publish": True},
        worker_send_task_events=False,
        worker_enable_remote_control=False,  # on Redis its subscription can block the event loop for ever after a reconnect
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_detect_quorum_queues=True,
        worker_soft_shutdown_timeout=0,  # a soft shutdown loses messages with the threads pool; lifecycle drains instead
        visibility_timeout=VISIBILITY_TIMEOUT_S,
        result_backend_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
        redis_socket_timeout=30,
        redis_socket_connect_timeout=5,
        redis_socket_keepalive=True,
        redis_retry_on_timeout=True,
    )
    return app


def add_queues(app: Celery, settings: Settings, model: str) -> None:
    """Let the application know the queues of another model's work; whoever consumes them declares them."""
    queues, is_redis = Queues.of(settings.namespace), speaks_redis(settings.required("broker_url"))
    for name in (queues.of_model(lane, model) for lane in Lane):
        if name not in app.amqp.queues:
            app.amqp.queues.add(_queue(name, queues, is_redis=is_redis))


class Publisher:
    """Publishes messages with publisher confirms over a connection of its own. Not thread-safe."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._channel: Any = None  # on that connection, for publishing
        self._is_redis = speaks_redis(settings.required("broker_url"))
        self.queues = Queues.of(settings.namespace)

    def publish(self, task: str, queue: str, messages: Sequence[Mapping[str, Any]]) -> int:
        """Publish messages and return how many the broker confirmed before it failed. Raises AwayError if none."""
        if queue not in self._app.amqp.queues:  # of a model that a job names
            self._app.amqp.queues.add(_queue(queue, self.queues, is_redis=self._is_redis))
        confirmed = 0
        try:
            connection = self._connect()
            if self._channel is None:
                self._channel = connection.channel()
            producer = self._app.amqp.Producer(self._channel)
            for message in messages:
                # Straight into the queue (an anonymous exchange), so that a lost binding loses nothing. Celery declares the queue
                # once per connection, so an emptied broker has it before its first consumer reconnects.
                kwargs = {"v": MESSAGE_VERSION, **message}
                self._app.send_task(task, kwargs=kwargs, queue=queue, producer=producer, ignore_result=True, retry=False)
                confirmed += 1
        except BROKER_DOWN as error:
            self._drop()
            if not confirmed:
                raise AwayError("broker", f"the broker did not take a message: {type(error).__name__}") from error
        return confirmed

    def ping(self) -> None:
        """Raise AwayError unless the broker answers and takes writes."""
        try:
            with self._connect().channel() as channel:
                if self._is_redis:
                    channel.client.delete("ping")  # of nothing: a replica, and one whose disk is full, refuse it all the same
        except BROKER_DOWN as error:
            self._drop()
            raise AwayError("broker", f"the broker does not answer: {type(error).__name__}") from error

    def depth(self, queue: str) -> int:
        """Return how many messages of the queue no consumer holds; 0 if the queue does not exist. Raises AwayError."""
        try:
            with self._connect().channel() as channel:
                if self._is_redis:  # a passive declare looks for the list without the key prefix and never finds it
                    return int(channel.client.llen(queue))
                return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except MISSING_QUEUE:
            self.close()  # the queue is gone, and with it what this connection has declared
            return 0
        except BROKER_DOWN as error:
            self._drop()
            raise AwayError("broker", f"the broker does not answer: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the connection; the next call opens a new one. Safe to call twice."""
        if self._connection is not None:
            connection, self._connection, self._channel = self._connection, None, None
            with suppress(*BROKER_DOWN):
                connection.release()

    def _drop(self) -> None:
        """Drop the connection without a closing handshake, which would wait once more for a broker that is silent."""
        if self._connection is not None and not self._is_redis:
            with suppress(*BROKER_DOWN):
                self._connection.collect()
        self.close()

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = connected(self._app, max_retries=1)
        return self._connection


def declare(app: Celery, settings: Settings, *, make: bool = True) -> None:
    """Declare the application's queues, the dead-letter queue first: RabbitMQ silently drops what it cannot dead-letter.

    Without `make`, only compare existing queues with what this version declares. Raises AwayError if the broker is down,
    ConfigurationError if a queue exists with other arguments.
    """
    queues = Queues.of(settings.namespace)
    exchange = Exchange(queues.dead_exchange, type="direct")
    dead = Queue(queues.dead, exchange, routing_key=queues.dead, queue_arguments={"x-queue-type": "quorum"})
    wanted = [dead, *app.amqp.queues.values()]
    try:
        with reached(app, settings) as connection:
            if connection.transport.driver_type != "amqp":
                return
            for queue in wanted:
                if make or _exists(connection, queue.name):
                    with connection.channel() as channel:
                        queue(channel).declare()
    except PreconditionFailed as error:
        raise ConfigurationError(
            f"RabbitMQ has the queue {queue.name} with other arguments: {error.reply_text}. Delete it while nothing runs (the work"
            " is in PostgreSQL and is published again), and set limits of your own with a policy."
        ) from error


@contextmanager
def reached(app: Celery, settings: Settings, *, max_retries: int = 3) -> Iterator[Connection]:
    """Lend a connection of its own. Raises AwayError, with the broker's reason, if it is down or goes down meanwhile.

    What RabbitMQ says about a queue is passed on as it is.
    """
    try:
        with connected(app, max_retries=max_retries) as connection:
            yield connection
    except PreconditionFailed:
        raise
    except BROKER_DOWN as error:
        raise _away(settings, error) from error


def _exists(connection: Connection, queue: str) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue=queue, passive=True)
    except NotFound:
        return False
    return True


def connected(app: Celery, *, max_retries: int) -> Connection:
    """Return a connection whose calls wait at most ANSWER_S for the broker. Raises one of BROKER_DOWN."""
    is_redis = speaks_redis(str(app.conf.broker_url))
    options = {"socket_timeout": ANSWER_S, "retry_on_timeout": False} if is_redis else {}
    connection = app.connection_for_write(transport_options=options)
    connection.ensure_connection(max_retries=max_retries, interval_start=0.1, timeout=5)
    if not is_redis:
        connection.connection.transport.sock.settimeout(ANSWER_S)  # the library's own timeout covers only reads between two frames
    return connection


def _away(settings: Settings, error: Exception) -> AwayError:
    """Return the error, with RabbitMQ's own reason such as a wrong password or virtual host."""
    where = urllib.parse.urlsplit(settings.required("broker_url").split(";")[0])
    cause = error.__cause__ or error
    said = getattr(cause, "reply_text", None)
    wrong = f"answers: {said}" if said else "does not answer."
    kind = RefusedError if getattr(cause, "reply_code", None) in REFUSED else AwayError
    return kind("broker", f"the broker at {where.hostname or where.path}:{where.port or ''} {wrong}")


class RefusedError(AwayError):
    """The broker runs but refuses this user. It may accept it later; at a process's start, a setting is probably wrong."""


def _queue(name: str, queues: Queues, *, is_redis: bool) -> Queue:
    arguments = (
        None
        if is_redis
        else {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": queues.dead_exchange,
            "x-dead-letter-routing-key": queues.dead,
        }
    )
    return Queue(name, Exchange(name, type="direct"), routing_key=name, queue_arguments=arguments)


def _redis_options(namespace: str) -> dict[str, Any]:
    return {
        "global_keyprefix": f"{namespace}:",
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_throttle": 1,  # the default sweeps only every 100 s
        "health_check_interval": 25,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "retry_on_timeout": True,
    }

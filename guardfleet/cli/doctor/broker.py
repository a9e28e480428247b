"""The broker: whether it answers, its version, how Redis is set up, and the shape of RabbitMQ's queues."""

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

from guardfleet.broker import celery_app
from guardfleet.cli.doctor import database
from guardfleet.cli.doctor.database import Clock
from guardfleet.cli.doctor.findings import Caution, Check, Pitfall, TroubleError
from guardfleet.errors import ConfigurationError, RetryableError
from guardfleet.settings import Settings

LEAST_RABBITMQ = (3, 10)  # quorum queues with a delivery limit, as they are declared
LEAST_REDIS = (6, 2)  # Celery's own limit
OF_ANOTHER = ("celery", "_kombu.binding.celery", "unacked", "unacked_index")  # Celery's names in an application without a prefix
NAME = "guardfleet-doctor"


def checks(settings: Settings, *, clock: Clock = time.time) -> Iterator[Check]:
    """Yield the checks of the broker, one chain."""
    reach = "check GUARDFLEET_BROKER_URL, that the server runs, and that no firewall keeps this machine off: `nc -vz HOST PORT`."
    if celery_app.speaks_redis(settings.required("broker_url")):
        yield Check("broker", lambda: _redis(settings), reach, Pitfall.PORT)
        clocks = "run a time service (chrony, systemd-timesyncd) on both machines."
        yield Check("broker's clock", lambda: _redis_clock(settings, clock), clocks, after=("broker",))
        return
    yield Check("broker", lambda: _rabbitmq(settings), reach, Pitfall.PORT)
    again = "stop the fleet, delete the queue (`rabbitmqctl delete_queue`), start the fleet: the work is in PostgreSQL."
    yield Check("queues", lambda: _queues(settings), again, after=("broker",))


def _rabbitmq(settings: Settings) -> str | Caution:
    with _reached(settings) as connection:
        said = {key: _text(value) for key, value in connection.connection.server_properties.items()}
    product, version = said.get("product", "the broker"), said.get("version", "")
    if product != "RabbitMQ":
        return Caution(f"{product} {version} answers; guardfleet is tested with RabbitMQ", "use RabbitMQ 3.10 or newer, or Redis.")
    _require_new("RabbitMQ", version, LEAST_RABBITMQ)
    return f"RabbitMQ {version} answers"


def _queues(settings: Settings) -> str:
    celery_app.declare(celery_app.make_app(settings, NAME), settings, make=False)
    return "those that exist have the shape that this version declares"


def _redis(settings: Settings) -> str | Caution:
    with _reached(settings) as connection, connection.channel() as channel:
        found, others = _asked(channel.client)
    version = found["redis_version"]
    _require_new("Redis", version, LEAST_REDIS)
    policy = found.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise TroubleError(
            f"maxmemory-policy is {policy}, and an evicted key is a lost queue: set noeviction.",
            "redis-cli config set maxmemory-policy noeviction, and the same in redis.conf.",
        )
    if others:
        said = "another Celery application uses the same Redis database, and can fill or flush it; use a separate one"
        return Caution(said, "give guardfleet a database number of its own in GUARDFLEET_BROKER_URL.")
    if not found.get("aof_enabled", 1):
        said = f"Redis {version} is not append-only: a restart empties the queues, until work is published again"
        return Caution(said, "redis-cli config set appendonly yes, and the same in redis.conf.")
    return f"Redis {version} answers"


def _redis_clock(settings: Settings, clock: Clock) -> str | Caution:
    with _reached(settings) as connection, connection.channel() as channel:
        before = clock()
        seconds, micros = channel.client.time()
        return database.told((before + clock()) / 2 - seconds - micros / 1e6, "the broker")


def _reached(settings: Settings) -> AbstractContextManager[Any]:
    return celery_app.reached(celery_app.make_app(settings, NAME), settings, max_retries=1)


def _asked(client: Any) -> tuple[dict[str, Any], int]:
    """Ask Redis how it is set up, and for the keys of other applications, which carry no prefix."""
    import redis

    try:
        plain = redis.Redis(connection_pool=client.connection_pool)  # without kombu's prefix
        return plain.info(), int(plain.exists(*OF_ANOTHER))
    except redis.RedisError as error:
        raise RetryableError(f"Redis answers, but not to INFO: {type(error).__name__}.") from error


def _require_new(product: str, version: str, least: tuple[int, int]) -> None:
    with suppress(ValueError):
        found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if len(found) == len(least) and found < least:
            raise ConfigurationError(f"{product} {version} is too old; at least {'.'.join(map(str, least))} is needed.")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

"""Logs: a fixed slug and fields on stderr, as JSON for machines or as lines for people.

JSON has the field names of the Elastic Common Schema, so that log stores take it as it is; what the schema has no name for stands
under `guardfleet.`, in this project's words.
"""

import contextlib
import logging
import os
import pathlib
import socket
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from guardfleet.errors import AwayError, StatementError
from guardfleet.settings import ENV_PREFIX, Settings, variable_of

ECS_VERSION = "8.17"
ECS = {  # our field, and the schema's
    "event": "message",
    "level": "log.level",
    "timestamp": "@timestamp",
    "process": "process.name",
    "reason": "error.message",
    "where": "error.stack_trace",
    "exception": "error.stack_trace",
    "request": "http.request.id",
    "method": "http.request.method",
    "route": "url.path",
    "status": "http.response.status_code",
    "address": "server.address",
    "key": "user.id",
}
FRAMES = 5  # innermost first, of an unexpected error
Logger = Any  # structlog's bound logger; its own type is a lazy proxy

# What Celery says at each try while the broker is away. `outage_began`, `outage_goes_on` and `outage_ended` say it once.
REPEATED = ("consumer: Connection to broker lost", "consumer: Cannot connect to", "Frequent restarts detected", "Couldn't ack")
HANDED_BACK = "reject requeue=True"  # of a task whose server is away: the message is published again

# Every slug that exists: a test compares the code with it.
SLUGS = (
    "worker_starting", "worker_ready", "worker_stopped", "model_loaded", "engine_stalled", "loop_stalled",
    "express_stalled", "express_reconnecting",
    "engine_died", "draining",
    "shard_finished", "shard_failed", "shard_raised", "shard_released", "shard_skipped", "shard_fenced", "shard_message_rejected",
    "shard_message_returned", "shard_rescued",
    "shard_halved", "shard_buried", "shard_passed_on", "shard_postponed", "lease_renewal_failed",
    "dispatcher_leading", "dispatcher_standing_by", "dispatcher_paused", "shards_published", "messages_lost",
    "queue_stalled", "queue_moves", "job_abandoned", "job_expired", "jobs_purged", "day_expired",
    "delivery_made", "delivery_failed", "delivery_raised", "delivery_skipped", "delivery_message_rejected",
    "delivery_message_returned", "endpoint_disabled",
    "outage_began", "outage_goes_on", "outage_ended", "model_loading", "model_failed", "health_changed",
    "setting_renamed", "step_raised", "listening_failed",
    "request", "request_failed", "console_violation", "throttle_away", "watching_paused",
    "file_intake_paused", "file_intake_failed", "file_intake_ended",
    "policy_not_understood",
    "swap_began", "swap_done", "swap_failed", "swap_waits", "golden_checked", "comparison_failed", "comparison_dropped",
    "child_started", "child_exited", "child_given_up", "shards_freed", "shards_not_freed", "workers_stopped",
)  # fmt: skip


def configure(settings: Settings, *, process: str) -> None:
    """Set up structlog and the standard library's logging; call once, at the entry point."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderers: list[Any] = (
        [Ecs(process), structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers]
        )
    )
    for name in ("celery.worker.consumer.consumer", "celery.app.trace", "celery.worker.request", "kombu.message"):
        logging.getLogger(name).addFilter(_is_news)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # libraries are logged only when something is wrong
    logging.getLogger("guardfleet").setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    for name in settings.renamed:
        get_logger().warning("setting_renamed", old=f"{ENV_PREFIX}{name.upper()}", new=variable_of(name))


class Ecs:
    """Names the fields as the Elastic Common Schema does, and adds which process of which machine writes the line."""

    def __init__(self, process: str) -> None:
        self._always = {
            "ecs.version": ECS_VERSION,
            "service.name": "guardfleet",
            "process.name": process,
            "process.pid": os.getpid(),
            "host.name": socket.gethostname(),
        }

    def __call__(self, _logger: Any, _method: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Return the line's fields, those that every line has at the end."""
        named: dict[str, Any] = {ECS.get(name, f"guardfleet.{name}"): value for name, value in fields.items()}
        first: dict[str, Any] = {name: named.pop(name) for name in ("@timestamp", "log.level", "message") if name in named}
        return {**first, **named, **self._always}


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(REPEATED) and HANDED_BACK not in record.getMessage()


def told(error: BaseException) -> dict[str, str]:
    """Describe an unexpected error for a log: class and place. Not its message, which can hold a caller's values."""
    frames = [frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename != contextlib.__file__][
        :FRAMES
    ]
    where = ", ".join(f"{pathlib.Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return {"reason": str(error) if isinstance(error, AwayError | StatementError) else type(error).__name__, "where": where}


def get_logger() -> Logger:
    """Return the logger of guardfleet's own events."""
    return structlog.get_logger("guardfleet")

"""Traces over OTLP, off unless `traces_url` is set; then one span a shard, a message and a delivery, and none a text.

A job is a trace whose ids follow from its public id, so that every process knows them without being told. Its root span is written
at its end. A batch of messages, and a worker's batch of texts, mixes many jobs: their spans have traces of their own, with links to
the roots of their jobs. Neither texts nor URLs nor ids of callers are attributes.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings

# The version whose names are used here. `messaging.*` and `gen_ai.*` are still in development there: a change is made on purpose,
# and never by installing another library.
CONVENTIONS = "https://opentelemetry.io/schemas/1.37.0"
LOW = (1 << 64) - 1
Attributes = Mapping[str, Any]
_tracer: Any = None
_provider: Any = None
_system = ""
_next_ids: ContextVar[tuple[int, int] | None] = ContextVar("ids of the next span", default=None)


def configure(settings: Settings, process: str) -> None:
    """Send traces from this process if a URL is set. Raises ConfigurationError if the library is not installed."""
    if settings.traces_url is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("traces_url needs more packages: pip install 'guardfleet[traces]'.") from None
    broker = settings.broker_url.get_secret_value() if settings.broker_url else ""
    system = "rabbitmq" if broker.startswith("amqp") else "redis"
    start(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.traces_url)), process, system=system)


def start(processor: Any, process: str, *, system: str) -> None:
    """Give spans to this processor of OpenTelemetry from now on; `system` is the broker, in the conventions' words."""
    global _tracer, _provider, _system  # noqa: PLW0603 - a process has one
    _system = system
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    class Ids(RandomIdGenerator):
        """The ids of a job for its root span, random ones for the others."""

        def generate_trace_id(self) -> int:
            known = _next_ids.get()
            return known[0] if known else super().generate_trace_id()

        def generate_span_id(self) -> int:
            known = _next_ids.get()
            return known[1] if known else super().generate_span_id()

    about = Resource.create({"service.name": "guardfleet", "service.namespace": "guardfleet", "guardfleet.process": process})
    _provider = TracerProvider(resource=about, id_generator=Ids(), shutdown_on_exit=False)
    _provider.add_span_processor(processor)
    _tracer = _provider.get_tracer("guardfleet", schema_url=CONVENTIONS)


def stop() -> None:
    """Send what is left, and be off; safe to call twice."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is not None:
        provider.shutdown()


def is_on() -> bool:
    """Return whether spans are written."""
    return _tracer is not None


@contextmanager
def span(
    name: str, attributes: Attributes, *, kind: str = "INTERNAL", jobs: Iterable[uuid.UUID] = (), of: uuid.UUID | None = None
) -> Iterator[None]:
    """Write a span around the block, linked to the roots of `jobs`; with `of` it is part of that job's trace."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415

    links = [Link(_root(job)) for job in jobs]
    context = None if of is None else set_span_in_context(NonRecordingSpan(_root(of)))
    if any(key.startswith("messaging.") for key in attributes):
        attributes = {**attributes, "messaging.system": _system}
    with _tracer.start_as_current_span(
        name,
        context,
        kind=SpanKind[kind],
        attributes=dict(attributes),
        links=links,
        record_exception=False,  # an exception's message can hold a caller's values: the status names its class alone
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def job(public_id: uuid.UUID, began: dt.datetime, ended: dt.datetime, attributes: Attributes) -> None:
    """Write the root span of a job that has ended."""
    if _tracer is None:
        return
    from opentelemetry.context import Context  # noqa: PLC0415

    token = _next_ids.set((public_id.int, _span_id(public_id)))
    try:
        root = _tracer.start_span("job", Context(), start_time=_ns(began), attributes=dict(attributes))
    finally:
        _next_ids.reset(token)
    root.end(_ns(ended))


def _root(public_id: uuid.UUID) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    return SpanContext(public_id.int, _span_id(public_id), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _span_id(public_id: uuid.UUID) -> int:
    return (public_id.int & LOW) or 1


def _ns(at: dt.datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000

"""Traces: a root for each job, links from what mixes jobs, nothing that a caller wrote."""

import time
import uuid
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from guardfleet.client.direct import DirectClient
from guardfleet.errors import ConfigurationError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry import tracing
from tests.services.moderating import moderator
from tests.services.stored import submit
from worker.dispatch.bulkhead import Bulkhead
from worker.dispatch.repairs import Mender
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]
TEXT = "canary-of-a-text"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What is traced."""
    exporter = InMemorySpanExporter()
    tracing.start(SimpleSpanProcessor(exporter), "test", system="redis")
    yield exporter
    tracing.stop()


def named(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_nothing_is_traced_unless_it_is_asked_for() -> None:
    assert not tracing.is_on()
    with tracing.span("x", {}):
        pass
    tracing.configure(load_settings(), "test")
    assert not tracing.is_on()


def test_a_shard_links_to_its_job_whose_root_has_the_jobs_ids_and_times(
    spans: InMemorySpanExporter, moderator: Moderator, db: Database, keyring: Keyring
) -> None:
    job = submit(db, keyring, 3)
    moderator(job.id, 0)
    settings = load_settings()
    Mender(db, keyring, "test", settings.retention, settings.tuning, Bulkhead(db.ping, time.monotonic)).relay()
    found = named(spans)
    shard, root = found["process bulk"], found["job"]
    assert root.context is not None
    assert root.context.trace_id == job.public_id.int
    assert root.parent is None
    assert root.start_time == int(job.created_at.timestamp() * 1e6) * 1000
    assert root.attributes is not None
    assert root.attributes["guardfleet.state"] == "completed"
    (link,) = shard.links
    assert (link.context.trace_id, link.context.span_id) == (root.context.trace_id, root.context.span_id)
    assert shard.context is not None
    assert shard.context.trace_id != root.context.trace_id, "a batch mixes jobs"
    assert shard.attributes is not None
    assert shard.attributes["messaging.system"] == "redis"
    for name, span in found.items():
        is_the_engines = name.startswith("chat ")
        assert any(key.startswith("gen_ai.") for key in span.attributes or {}) is is_the_engines
    assert moderator.seats.main is not None
    inside = found[f"chat {moderator.seats.main.model.name}"], found["settle"]
    assert {span.parent and span.parent.span_id for span in inside} == {shard.context.span_id}


def test_an_error_leaves_its_class_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match=TEXT), tracing.span("x", {}, of=uuid.uuid4()):
        raise ValueError(TEXT)
    (span,) = spans.get_finished_spans()
    assert span.status.description == "ValueError"
    assert TEXT not in span.to_json()


def test_no_text_is_in_any_span(spans: InMemorySpanExporter, moderator: Moderator, db: Database, keyring: Keyring) -> None:
    with_text = DirectClient(db, keyring, load_settings()).submit([TEXT]).job
    moderator(with_text.id, 0)
    assert spans.get_finished_spans()
    assert TEXT not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_traces_without_the_library_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"guardfleet\[traces\]"):
        tracing.configure(load_settings(traces_url="http://127.0.0.1:4318/v1/traces"), "test")

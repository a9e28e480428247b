"""Entry points of the worker's processes, called by the command line."""

from collections.abc import Callable
from functools import partial

from guardfleet.broker.celery_app import Publisher, make_app
from guardfleet.process import interpreter
from guardfleet.process.readiness import say_ready
from guardfleet.process.signals import on_termination
from guardfleet.settings import Settings
from guardfleet.telemetry import metrics
from guardfleet.telemetry.health import Part
from guardfleet.telemetry.probes import Reporting
from worker.dispatch.dispatcher import Dispatcher
from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend, make_engine
from worker.engine.interfaces import BatchReport
from worker.engine.prompting.windows import Policy
from worker.engine.spec import Spec
from worker.moderation.throughput import Throughput
from worker.process import lifecycle

DISPATCHER_LIMIT_S = 30.0  # a dispatcher that has not ticked for this long is not live


def moderate(settings: Settings) -> int:
    """Run `guardfleet worker`."""
    interpreter.hand_over_often()
    return lifecycle.run_moderator(settings, engine_of)


def deliver(settings: Settings) -> int:
    """Run `guardfleet worker --webhooks`."""
    return lifecycle.run_deliverer(settings)


def dispatch(settings: Settings) -> int:
    """Run `guardfleet dispatcher`."""
    with Reporting(settings, "dispatcher") as health:
        db, keyring = lifecycle.open_store(settings, health, application="guardfleet-dispatcher")
        publisher = Publisher(make_app(settings, "guardfleet-dispatcher"), settings)
        dispatcher = Dispatcher(db, publisher, keyring, settings)
        on_termination(dispatcher.stop)
        health.live = partial(_stuck, dispatcher)
        health.add(Part("broker", dispatcher.broker_wrong, is_vital=False, address=settings.broker_address))
        health.add(Part("queues", dispatcher.queues_wrong, is_vital=False))
        health.ready()
        say_ready()  # it publishes work from its first tick on
        try:
            dispatcher.run()
        finally:
            publisher.close()
            db.close()
    return 0


def _stuck(dispatcher: Dispatcher) -> str | None:
    seconds = dispatcher.clock() - dispatcher.last_tick
    return f"the dispatcher has not ticked for {seconds:.0f} s" if seconds > DISPATCHER_LIMIT_S else None


def engine_of(
    settings: Settings, throughput: Throughput | None = None, died: Callable[[str], None] = lifecycle.engine_died
) -> BatchingEngine:
    """Make the engine that the settings ask for; its batches are counted, and `died`, called when it dies, ends the process."""
    measured = throughput or Throughput()
    backend = make_backend(spec_of(settings))
    memory_total = backend.memory_total_bytes()
    if memory_total:
        metrics.GPU_MEMORY_TOTAL.labels(backend.device).set(memory_total)

    def counted(report: BatchReport) -> None:
        metrics.BATCH_ROWS.observe(report.rows)
        metrics.BATCH_TOKENS.observe(report.tokens)
        metrics.BATCH_FILL.observe(report.tokens / backend.budget_tokens)
        metrics.ROWS.labels("answered").inc(report.answered)
        metrics.ROWS.labels("further_pass").inc(report.rows - report.answered)
        metrics.CLOSE_CALLS.inc(report.close)
        metrics.TOKENS.inc(report.tokens)
        metrics.BUSY.inc(report.seconds)
        measured.batch(report.tokens, report.seconds)
        if memory_total:
            metrics.GPU_MEMORY.labels(backend.device).set(backend.memory_bytes())

    return make_engine(backend, on_batch=counted, on_fatal=died)


def spec_of(settings: Settings) -> Spec:
    """Return the engine's specification according to the settings."""
    return Spec(
        settings.tuning.engine,
        model=settings.engine.model,
        revision=settings.engine.revision,
        device=settings.engine.device,
        dtype=settings.engine.dtype,
        threads=settings.engine.threads,
        streams=settings.tuning.streams,
        quantize=settings.engine.quantize,
        compile=settings.tuning.compile,
        batch_tokens=settings.engine.batch_tokens,
        policy=Policy(
            settings.engine.window_tokens, settings.tuning.window_overlap, settings.tuning.max_windows, settings.engine.long_texts
        ),
        instant_ms_per_batch=settings.tuning.instant_ms_per_batch,
        role_labels=settings.engine.role_labels,
        memory=settings.data_dir,
        detector=settings.engine.detector,
        neutral_label=settings.engine.neutral_label,
        window_rule=settings.engine.window_rule,
        min_tokens=settings.engine.min_tokens,
        reasons=settings.engine.reasons,
    )

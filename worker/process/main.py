"""Entry points of the worker's processes, called by the command line."""

import signal
from functools import partial

from guardfleet.broker.celery_app import Publisher, make_app
from guardfleet.process import interpreter
from guardfleet.process.readiness import say_ready
from guardfleet.settings import Settings
from guardfleet.store import installation
from guardfleet.telemetry import metrics
from worker.dispatch.dispatcher import Dispatcher
from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend, make_engine
from worker.engine.interfaces import BatchReport
from worker.engine.prompting.windows import Policy
from worker.engine.spec import Spec
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
    db, keyring = lifecycle.open_store(settings, application="guardfleet-dispatcher")
    publisher = Publisher(make_app(settings, "guardfleet-dispatcher"), settings)
    dispatcher = Dispatcher(db, publisher, keyring, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    probes = lifecycle.start_probes(
        settings,
        live=lambda: "no tick" if dispatcher.clock() - dispatcher.last_tick > DISPATCHER_LIMIT_S else None,
        ready=partial(installation.wrong, db, keyring),
    )
    say_ready()  # it publishes work from its first tick on
    try:
        dispatcher.run()
    finally:
        publisher.close()
        if probes:
            probes.stop()
        db.close()
    return 0


def engine_of(settings: Settings) -> BatchingEngine:
    """Make the engine that the settings ask for; its batches are counted, and its death ends the process."""
    backend = make_backend(spec_of(settings))

    def counted(report: BatchReport) -> None:
        metrics.BATCH_ROWS.observe(report.rows)
        metrics.BATCH_TOKENS.observe(report.tokens)
        metrics.FURTHER_PASSES.inc(report.rows - report.answered)
        metrics.CLOSE_CALLS.inc(report.close)
        metrics.GPU_MEMORY.labels(backend.device).set(backend.memory_bytes())

    return make_engine(backend, on_batch=counted, on_fatal=lifecycle.engine_died)


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
    )

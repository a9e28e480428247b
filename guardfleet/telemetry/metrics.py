"""Every metric, declared once, by the process that owns it. Labels are names of states and categories; never a text, an id, a URL.

A process exports its own metrics and no others (`registry_of`), so that a zero is always something that was counted. A counter is
updated after the commit that makes it true. docs/metrics.md is generated from here.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector

from guardfleet.domain.lanes import Lane
from guardfleet.domain.verdict import CATEGORY_NAMES, ERROR_CODES, ServedBy, Severity
from guardfleet.telemetry.collectors import Durations, Known, RollingShare

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LAG_BUCKETS_S = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
WINDOW_S = 300.0  # of the safe ratio

# All processes.
BUILD = Info("guardfleet_build", "Version of guardfleet, and which process this is.", registry=None)
DEPENDENCY_UP = Known("guardfleet_dependency_up", "1 if the server answered when it was last asked, else 0.", ["dependency"])
OUTAGES = Counter("guardfleet_outages", "Times that a server went away.", ["dependency"], registry=None)
CONNECTIONS = Known("guardfleet_database_connections", "Connections of the pool, by whether a thread holds them.", ["state"])
HEALTH = Known("guardfleet_health", "Health of the process: 2 healthy, 1 degraded, 0 unhealthy.")

# The worker. The first names are those of articles on serving this model.
REQUESTS = Counter("qwen_guard_request", "Texts with a committed outcome.", ["method", "result"], registry=None)
DETECTIONS = Counter(
    "guardfleet_detections", "Texts by how they ended with a detector other than the guard.", ["detector", "label"], registry=None
)
REQUEST_SECONDS = Durations(
    "qwen_guard_request_duration_seconds", "From claiming a text's shard to its committed verdict.", ["method"], buckets=BUCKETS_S
)
ACTIVE = Gauge("qwen_guard_active_requests", "Texts in work: those of the shards that this worker holds.", registry=None)
GPU_MEMORY = Gauge("qwen_guard_gpu_memory_usage_bytes", "Device memory that the process has allocated.", ["device"], registry=None)
SAFE_RATIO = RollingShare(
    "qwen_guard_safe_ratio", "Share of safe texts among those judged in the last 5 minutes.", window_s=WINDOW_S
)
RISK_TYPES = Gauge(
    "qwen_guard_risk_type_distribution", "Texts by category since the start of the process.", ["type"], registry=None
)
CATEGORIES = Counter("guardfleet_texts_by_category", "Texts by category.", ["category"], registry=None)
GPU_MEMORY_TOTAL = Gauge("guardfleet_gpu_memory_total_bytes", "Memory that the device has.", ["device"], registry=None)
ERRORS = Counter("guardfleet_text_errors", "Texts without a verdict, by the error's code.", ["code"], registry=None)
SAVED = Counter("guardfleet_texts_saved", "Texts that needed no model run.", ["by"], registry=None)
ESCALATED = Counter("guardfleet_texts_escalated", "Texts passed on to a second model.", registry=None)
DECISIONS = Counter("guardfleet_decisions", "Texts by what the active policy says to do with them.", ["action"], registry=None)
UNDECIDED = Counter(
    "guardfleet_texts_undecided",
    "Texts that were written without a decision though a policy is active: this release does not understand it.",
    registry=None,
)
WINDOWS = Counter("guardfleet_windows", "Windows in which long texts were judged.", registry=None)
CLAIMS = Counter("guardfleet_claims", "Shards claimed.", ["lane"], registry=None)
SHARDS = Counter("guardfleet_shards", "Shards that left this process, by outcome.", ["outcome"], registry=None)
BATCH_TOKENS = Histogram(
    "guardfleet_batch_tokens", "Prompt tokens in a batch.", buckets=(64, 256, 1024, 2048, 4096, 8192, 16_384, 65_536), registry=None
)
BATCH_ROWS = Histogram("guardfleet_batch_rows", "Rows in a batch.", buckets=(1, 4, 16, 32, 64, 128, 256, 512), registry=None)
BATCH_FILL = Histogram(
    "guardfleet_batch_fill_ratio",
    "Tokens of a batch as a share of its budget.",
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1),
    registry=None,
)
ROWS = Counter(
    "guardfleet_rows", "Rows that left a forward pass: answered, or with a further pass to come.", ["then"], registry=None
)
CLOSE_CALLS = Counter("guardfleet_close_calls", "Answers that could change in another batch, at this precision.", registry=None)
TOKENS = Counter("guardfleet_prompt_tokens", "Prompt tokens given to the device.", registry=None)
BUSY = Counter("guardfleet_device_busy_seconds", "Time during which the device had a batch.", registry=None)
STAGES = Counter(
    "guardfleet_task_seconds", "Time of tasks by stage: loading, tokenising, waiting, device, writing.", ["stage"], registry=None
)
MODEL = Known("guardfleet_model_info", "1 for the model in use.", ["model", "revision", "is_demo"])
MODEL_LOADING = Known("guardfleet_model_loading_seconds", "How long the model has been loading; silent once it is loaded.")
MODEL_LOADED = Known("guardfleet_model_load_duration_seconds", "How long the model took to load.")
RATE = Known("guardfleet_worker_tokens_per_second", "Tokens a second while the device is busy, over the last minutes.")
LOOP_TICK = Known("guardfleet_worker_loop_timestamp_seconds", "When Celery's event loop last turned, Unix time.")

# The dispatcher. What it reads in PostgreSQL is exported by the one that leads.
LEADING = Gauge("guardfleet_dispatcher_leading", "1 if this dispatcher leads, else 0.", registry=None)
RAISED = Counter(
    "guardfleet_dispatcher_errors", "Errors in a dispatcher's steps; the other steps went on.", ["step"], registry=None
)
PUBLISHED = Counter("guardfleet_doorbells", "Messages published, first or again.", ["queue", "kind"], registry=None)
RESCUED = Counter("guardfleet_shards_rescued", "Shards taken back because their lease ran out.", registry=None)
POISONED = Counter("guardfleet_poison", "Shards that were tried too often, by what became of them.", ["outcome"], registry=None)
DEAD_LETTERS = Counter("guardfleet_dead_letters", "Texts given up, by the code in their verdict.", ["code"], registry=None)
RETRYING = Known("guardfleet_shards_retrying", "Shards that wait for another attempt after a failure.", ["lane"])
OPEN_SHARDS = Known("guardfleet_shards_open", "Shards that are not finished, by state.", ["lane", "state"])
BACKLOG_TEXTS = Known("guardfleet_backlog_texts", "Texts that wait or are in work.", ["lane", "model"])
BACKLOG_TOKENS = Known("guardfleet_backlog_tokens", "The same in tokens, estimated from their size.", ["lane", "model"])
OLDEST = Known("guardfleet_backlog_oldest_seconds", "Age of the oldest job with texts that wait.", ["lane", "model"])
STALLED = Known("guardfleet_stalled_queues", "Queues from which no worker has taken work for too long.")
LATE_JOBS = Known("guardfleet_jobs_late", "Jobs that will miss the end of their completion window at the present rate.", ["lane"])
WORST_LATE = Known("guardfleet_jobs_late_worst_seconds", "How late the worst of them will be.", ["lane"])
WANTED = Known("guardfleet_workers_wanted", "Workers that the waiting work needs to end in time.", ["route"])
WORKERS = Known("guardfleet_workers", "Workers that were heard of in the last 7 s.", ["model", "state"])
UNSERVED = Known("guardfleet_routes_without_worker", "Queues with work for which no worker is there.")
DELIVERIES_DUE = Known("guardfleet_deliveries_due", "Webhook deliveries that are due and not yet made.")
DELIVERY_LAG = Known("guardfleet_delivery_oldest_seconds", "How long the oldest of them has been due.")
DATABASE_BYTES = Known("guardfleet_database_bytes", "Size of the database.")

# The sender of webhooks.
DELIVERIES = Counter("guardfleet_deliveries", "Webhook attempts by outcome.", ["outcome"], registry=None)
DELIVERED_AFTER = Histogram(
    "guardfleet_delivery_lag_seconds", "From an event to its delivery.", buckets=LAG_BUCKETS_S, registry=None
)

# The API.
API_SECONDS = Histogram(
    "guardfleet_api_request_seconds", "Duration of requests by route.", ["route"], buckets=BUCKETS_S, registry=None
)
API_REQUESTS = Counter("guardfleet_api_requests", "Requests by route and status.", ["route", "status"], registry=None)
FILES_FREE = Known("guardfleet_files_free_bytes", "Free space where uploaded files are kept.")

EVERY = (BUILD, DEPENDENCY_UP, OUTAGES, CONNECTIONS, HEALTH)
OWNERS: Mapping[str, tuple[Any, ...]] = {
    "worker": (
        REQUESTS, REQUEST_SECONDS, ACTIVE, GPU_MEMORY, SAFE_RATIO, RISK_TYPES, CATEGORIES, GPU_MEMORY_TOTAL, ERRORS, SAVED,
        DETECTIONS, ESCALATED, DECISIONS, UNDECIDED, WINDOWS, CLAIMS, SHARDS, BATCH_TOKENS, BATCH_ROWS, BATCH_FILL, ROWS,
        CLOSE_CALLS, TOKENS, BUSY, STAGES, MODEL, MODEL_LOADING, MODEL_LOADED, RATE, LOOP_TICK,
    ),
    "dispatcher": (
        LEADING, DECISIONS, UNDECIDED, RAISED, PUBLISHED, RESCUED, POISONED, DEAD_LETTERS, RETRYING, OPEN_SHARDS,
        BACKLOG_TEXTS, BACKLOG_TOKENS, OLDEST, STALLED, LATE_JOBS, WORST_LATE, WANTED, WORKERS, UNSERVED, DELIVERIES_DUE,
        DELIVERY_LAG, DATABASE_BYTES,
    ),
    "webhooks": (DELIVERIES, DELIVERED_AFTER, LOOP_TICK),
    "api": (API_SECONDS, API_REQUESTS, FILES_FREE),
}  # fmt: skip


RESULTS = [(method, severity.label) for method in ("prompt", "response") for severity in Severity]
# Counters whose labels are known begin at 0: `rate` and `increase` do not see the first event of a series that is born with it.
BEGIN_AT_0: Mapping[Counter, Sequence[tuple[str, ...]]] = {
    REQUESTS: RESULTS,
    CATEGORIES: [(name,) for name in CATEGORY_NAMES.values()],
    ERRORS: [(code,) for code in ERROR_CODES],
    SAVED: [(served.label,) for served in (ServedBy.CACHE, ServedBy.DUPLICATE, ServedBy.RULE_EMPTY, ServedBy.LIST)],
    DECISIONS: [("allow",), ("flag",), ("review",), ("block",)],
    CLAIMS: [(lane.label,) for lane in Lane],
    SHARDS: [(outcome,) for outcome in ("finished", "failed", "fenced", "passed_on", "postponed", "released", "skipped")],
    ROWS: [("answered",), ("further_pass",)],
    POISONED: [("halved",), ("buried",)],
    DEAD_LETTERS: [("abandoned",)],
    DELIVERIES: [(outcome,) for outcome in ("delivered", "deferred", "exhausted", "refused")],
}


def registry_of(process: str) -> CollectorRegistry:
    """Return a registry with what the process of this name exports, its memory and processor time among it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for metric in (*EVERY, *OWNERS[process]):
        registry.register(metric)
        for labels in BEGIN_AT_0.get(metric, ()):
            metric.labels(*labels)
    BUILD.info({"version": version("guardfleet"), "process": process})
    return registry

"""Every metric, declared once. Labels are names of states and categories; never a text, an id or a URL."""

from prometheus_client import Counter, Gauge, Histogram

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

REQUESTS = Counter("qwen_guard_request", "Texts by mode and outcome.", ["method", "result"])
REQUEST_SECONDS = Histogram(
    "qwen_guard_request_duration_seconds", "From submitting texts to their answers.", ["method"], buckets=BUCKETS_S
)
ACTIVE = Gauge("qwen_guard_active_requests", "Shards being processed.")
GPU_MEMORY = Gauge("qwen_guard_gpu_memory_usage_bytes", "Device memory in use.", ["device"])
SAFE_RATIO = Gauge("qwen_guard_safe_ratio", "Share of safe texts among those judged since the start.")
RISK_TYPES = Counter("qwen_guard_risk_type_distribution", "Texts by category.", ["type"])

BATCH_TOKENS = Histogram(
    "guardfleet_batch_tokens", "Prompt tokens in one batch.", buckets=(64, 256, 1024, 2048, 4096, 8192, 16_384, 65_536)
)
BATCH_ROWS = Histogram("guardfleet_batch_rows", "Rows in one batch.", buckets=(1, 4, 16, 32, 64, 128, 256, 512))
FURTHER_PASSES = Counter("guardfleet_further_passes", "Rows whose answer differed from the draft and needed another pass.")
CLOSE_CALLS = Counter("guardfleet_close_calls", "Answers that could change in another batch, at this precision.")
SAVED = Counter("guardfleet_texts_saved", "Texts that needed no model run.", ["by"])
SHARDS = Counter("guardfleet_shards", "Shards by outcome.", ["outcome"])
BACKLOG = Gauge("guardfleet_backlog_shards", "Shards not finished.", ["lane"])
PUBLISHED = Counter("guardfleet_doorbells", "Messages published, first or again.", ["queue", "kind"])
STALLED = Gauge("guardfleet_stalled_queues", "Queues from which no worker has taken work for too long.")
RESCUED = Counter("guardfleet_shards_rescued", "Shards taken back because their lease ran out.")
DELIVERIES = Counter("guardfleet_deliveries", "Webhook attempts by outcome.", ["outcome"])
LOOP_TICK = Gauge("guardfleet_worker_loop_timestamp_seconds", "When Celery's event loop last turned, Unix time.")
RAISED = Counter("guardfleet_dispatcher_errors", "Errors in a dispatcher's steps; the other steps went on.", ["step"])
LEADING = Gauge("guardfleet_dispatcher_leading", "1 if this dispatcher leads.")
API_SECONDS = Histogram("guardfleet_api_request_seconds", "Duration of API requests.", ["route", "status"], buckets=BUCKETS_S)

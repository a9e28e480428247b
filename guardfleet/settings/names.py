"""The settings' names before 0.2, and where each is now. Old names are read for one more version, with a warning."""

from collections.abc import Mapping
from types import MappingProxyType

ENV_PREFIX = "GUARDFLEET_"
DELIMITER = "__"
ALLOW_TUNING = "GUARDFLEET_ALLOW_TUNING"


def _same(group: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (group, name) for name in names}


PLACES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **_same("engine", "model", "device", "dtype", "quantize", "batch_tokens", "window_tokens", "long_texts", "role_labels"),
        "detector": ("engine", "detector"),
        "threads": ("engine", "threads"),
        "model_revision": ("engine", "revision"),
        **_same("worker", "named_only", "concurrency"),
        **_same("intake", "shard_texts", "max_text_bytes", "max_backlog_texts"),
        "cache_hours": ("cache", "hours"),
        "cache_across_tenants": ("cache", "across_tenants"),
        "purge_hours": ("retention", "text_hours"),
        "verdict_days": ("retention", "verdict_days"),
        "webhook_schedule_s": ("webhooks", "schedule_s"),
        "webhook_timeout_s": ("webhooks", "timeout_s"),
        "webhook_allow_networks": ("webhooks", "allow_networks"),
        "api_host": ("api", "host"),
        "api_port": ("api", "port"),
        "api_max_body_bytes": ("api", "max_body_bytes"),
        **_same("api", "moderation_timeout_s", "files_url", "files_max_bytes", "rate_limit", "quota", "rate_limit_url"),
        **_same(
            "tuning", "engine", "instant_ms_per_batch", "engine_stall_s", "compile", "streams", "window_overlap", "max_windows"
        ),
        **_same("tuning", "shard_bytes", "prefetch_window", "tick_s", "republish_s", "lease_s", "max_claims", "max_failures"),
        **_same("tuning", "retry_base_s", "retry_cap_s", "stall_s", "intake_idle_s", "webhook_at_once", "webhook_disable_days"),
        **_same("tuning", "api_max_json_bytes", "api_max_connections", "api_max_waiting", "api_head_s", "api_pause_s"),
    }
)
GUARDED = ("engine", "instant_ms_per_batch")  # not accepted under an old name: `instant` judges nothing


def variable_of(name: str) -> str:
    """Return the environment variable of a setting, given its old name, or its own if it has no group."""
    group, leaf = PLACES.get(name, ("", name))
    return ENV_PREFIX + (f"{group}{DELIMITER}{leaf}" if group else leaf).upper()


def renamed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environ` that are given under an old name, with their new names."""
    old = {ENV_PREFIX + name.upper(): variable_of(name) for name in PLACES}
    return {name: new for name, new in old.items() if name in environ}


def for_child(environ: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with `changes`, without variables that are old names of what is changed: both would be refused."""
    tuned = f"{ENV_PREFIX}TUNING" in changes
    old_names = [old for old, (group, _) in PLACES.items() if variable_of(old) in changes or (tuned and group == "tuning")]
    replaced = {ENV_PREFIX + old.upper() for old in old_names}
    return {name: value for name, value in environ.items() if name not in replaced} | dict(changes)


def placed(values: Mapping[str, object]) -> dict[str, object]:
    """Group values that are given by old or by own names."""
    out: dict[str, object] = {}
    for name, value in values.items():
        group, leaf = PLACES.get(name, ("", name))
        if group and not (name == group and isinstance(value, dict)):
            inside = out.setdefault(group, {})
            assert isinstance(inside, dict)  # noqa: S101 - made here
            inside[leaf] = value
        else:
            out[name] = value
    return out

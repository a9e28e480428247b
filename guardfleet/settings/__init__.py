"""Every setting, with its bound. Built once at an entry point and passed down; nothing else reads the environment."""

import ipaddress
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from guardfleet.errors import ConfigurationError
from guardfleet.settings.server_urls import require_plain

ENV_PREFIX = "GUARDFLEET_"
HOMELESS = pathlib.Path("~/.local/share/guardfleet")  # as it stands: there is no home to put in its place
LEASE_RENEWALS = 3  # a lease survives two lost renewals


def default_data_dir() -> pathlib.Path:
    """Where the embedded stack keeps its data: the user's data folder, or /var/lib for root (whose home nobody else can read)."""
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/guardfleet")
    return HOMELESS.expanduser() if _has_home() else HOMELESS


def _has_home() -> bool:
    try:
        pathlib.Path.home()
    except RuntimeError:  # HOME is not set, and the user is in no list: as in a container
        return False
    return True


def _items(value: Any) -> Any:
    """A list as people write it, items with commas between; JSON too."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [item.strip() for item in value.split(",") if item.strip()]


def _network(value: str) -> str:
    """A network in CIDR. Raises ValueError."""
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}; give networks as 10.0.0.0/8 or fc00::/7, with commas between") from None
    return value


def _limit(value: str) -> str:
    """So many in a time, or nothing. Raises ValueError."""
    if value and not re.fullmatch(r"\d+\s*(/|per)\s*(\d+\s*)?(second|minute|hour|day|month|year)s?", value.strip().lower()):
        raise ValueError("this is no limit; write one as 600/minute or 1000000/day")
    return value


Listed = BeforeValidator(_items)
Limit = Annotated[str, AfterValidator(_limit)]
Delay = Annotated[float, Field(ge=0.0, le=31_536_000.0)]


class Settings(BaseSettings):
    """Read from `GUARDFLEET_*` variables; unknown keys stop the process."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15+, `postgresql://user:password@host/db`. Empty: embedded."
    )
    broker_url: SecretStr | None = Field(
        None, description="`amqp://` (RabbitMQ 3.10+, several joined by `;`) or `redis://` (Redis 6.2+). Empty: embedded Valkey."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="32 bytes, base64; seals texts and secrets at rest. `guardfleet keys secret` makes one. Embedded: generated.",
    )
    previous_secret_key: SecretStr | None = Field(
        None, description="The key before it, while that is rotated out: what it sealed is opened too (docs/security.md)."
    )
    data_dir: pathlib.Path = Field(
        default_factory=default_data_dir, description="Data of the embedded stack; digests of model files."
    )
    namespace: str = Field(
        "guardfleet", pattern=r"^[a-z][a-z0-9_.-]{0,40}$", description="Prefix of queues, exchanges and Redis keys."
    )

    model: str = Field("demo", description="A hub name (`Qwen/Qwen3Guard-Gen-0.6B`), a folder, or `demo`.")
    model_revision: str | None = Field(None, description="Branch, tag or commit of a hub model; pin it in production.")
    named_only: bool = Field(False, description="Take only jobs that name this worker's model: for the second model of a cascade.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$", description="`auto` takes the GPU where there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: bf16 where the device has units for it."
    )
    quantize: Literal["none", "int8", "fp8"] = Field(
        "none", description="The layers' matrices in eight bits; measure first: `guardfleet evaluate FILE --against int8`."
    )
    compile: bool = Field(
        False, description="Fuse norms, rotations and gates with torch.compile; `guardfleet bench engine --compile` has its cost."
    )
    batch_tokens: int = Field(
        0, ge=0, le=1_048_576, description="Tokens in one forward pass; 0: what the device has room for, found at the start."
    )
    window_tokens: int = Field(
        8192, ge=256, le=131_072, description="Longest prompt judged at once, tokens, policy included; also the model's positions."
    )
    window_overlap: int = Field(512, ge=1, le=65_536, description="Tokens that neighbouring windows of a longer text share.")
    max_windows: int = Field(64, ge=1, le=4096, description="A text that needs more windows is an error, never cut silently.")
    long_texts: Literal["windows", "head", "tail", "ends"] = Field(
        "windows", description="What of a text longer than a window is judged: all of it, its beginning, its end, or both."
    )
    role_labels: Literal["neutralise", "keep"] = Field(
        "neutralise",
        description="Lines of a text that look like turns (`USER: ...`): shown to the model so that they are none, or as they are.",
    )
    threads: int = Field(0, ge=0, le=256, description="CPU threads of the model; 0: all cores.")
    streams: int = Field(0, ge=0, le=64, description="Batches beside each other on a CPU, which share its threads; 0: chosen.")
    engine: Literal["model", "instant"] = Field("model", description="`instant` judges nothing: for load runs and tests.")
    instant_ms_per_batch: float = Field(0.0, ge=0.0, le=60_000.0, description="What the instant engine sleeps per batch, ms.")
    engine_stall_s: float = Field(300.0, ge=1.0, le=86_400.0, description="A batch on the device for longer ends the process, s.")

    shard_texts: int = Field(1024, ge=1, le=8192, description="Texts in one shard; one shard should take 5-30 s.")
    shard_bytes: int = Field(4 << 20, ge=1024, le=64 << 20, description="A shard closes early at this many bytes of text.")
    max_text_bytes: int = Field(8 << 20, ge=1, le=256 << 20, description="Longest input line taken, bytes.")
    concurrency: int = Field(4, ge=1, le=64, description="Shards in work at once in one worker process.")
    prefetch_window: int = Field(32, ge=1, le=10_000, description="Most messages out per queue; the rest waits in Postgres.")
    max_backlog_texts: int = Field(
        100_000_000, ge=1, description="Texts of all jobs without a verdict, from which on new jobs are refused for a while."
    )
    intake_idle_s: float = Field(
        3600.0,
        ge=1.0,
        le=604_800.0,
        description="A submit that was cut off is given up when nobody went on with it for so long, s.",
    )
    stall_s: float = Field(
        300.0, ge=1.0, le=86_400.0, description="A queue nobody takes work from for so long is called stalled, s."
    )
    lease_s: float = Field(45.0, ge=1.0, le=3600.0, description="A dead worker's shard is taken back after this long, s.")
    max_claims: int = Field(6, ge=1, le=100, description="Claims, crashes included, before a shard is halved (one text: given up).")
    max_failures: int = Field(5, ge=1, le=100, description="Failures, each retried, before a shard is halved (one text: given up).")
    retry_base_s: float = Field(2.0, gt=0.0, le=3600.0, description="First retry delay, s; doubles.")
    retry_cap_s: float = Field(300.0, gt=0.0, le=86_400.0, description="Longest retry delay, s.")
    tick_s: float = Field(0.25, ge=0.01, le=60.0, description="The dispatcher's pause when there is nothing to do, s.")
    republish_s: float = Field(
        10.0, ge=0.2, le=3600.0, description="Age at which a message the broker no longer has is published again, s."
    )
    cache_hours: float = Field(
        24.0, ge=0.0, le=8760.0, description="How old a verdict may be to serve the same text again; 0: never."
    )
    cache_across_tenants: bool = Field(False, description="Verdicts of one tenant may serve another; the same in all workers.")
    purge_hours: float = Field(24.0, ge=0.0, le=8760.0, description="Texts are deleted this long after their job ended.")
    verdict_days: float = Field(
        90.0, ge=1.0, le=36_500.0, description="Jobs and their verdicts are dropped by day, this long after the day of submission."
    )

    webhook_schedule_s: Annotated[tuple[Delay, ...], NoDecode, Listed] = Field(
        (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="Delays before each attempt, s, with commas between.",
    )
    webhook_timeout_s: float = Field(15.0, gt=0.0, le=120.0, description="Total time of one attempt, s.")
    webhook_at_once: int = Field(
        4, ge=1, le=32, description="Deliveries under way to one receiver; 1 if it fails or has taken none yet."
    )
    webhook_disable_days: float = Field(5.0, gt=0.0, le=365.0, description="Only failures for so long disable an endpoint.")
    webhook_allow_networks: Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, Listed] = Field(
        (),
        description="Private networks that webhooks may reach, as `10.0.0.0/8,fc00::/7`; others that are not public are refused.",
    )

    api_url: str | None = Field(None, description="An API to submit to, instead of the database: http://host:8080.")
    api_key: SecretStr | None = Field(None, description="The key for it, gf_...")
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8080, ge=0, le=65_535, description="Port of the API; 0: any free one.")
    api_max_body_bytes: int = Field(512 << 20, ge=1, description="Largest body of a batch, unpacked.")
    api_max_json_bytes: int = Field(16 << 20, ge=1 << 16, description="Largest body of any other request, as of a moderation.")
    api_max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Connections of one API process; those longest without a request make room for more.",
    )
    api_max_waiting: int = Field(
        300, ge=1, le=100_000, description="Requests of one API key that wait for news of a batch; half of all connections at most."
    )
    api_head_s: float = Field(10.0, gt=0.0, le=600.0, description="Longest time for a request's head, s.")
    api_pause_s: float = Field(60.0, gt=0.0, le=3600.0, description="Time in which a body that goes on brings at least 1 KiB, s.")
    moderation_timeout_s: float = Field(30.0, gt=0.0, le=300.0, description="Longest wait of a request for its verdict, s.")
    files_url: str | None = Field(
        None, description="Where uploaded files lie: a folder, s3://bucket/prefix (with s3fs), ...; empty: in data_dir."
    )
    files_max_bytes: int = Field(512 << 20, ge=1, description="Largest uploaded file, bytes.")
    rate_limit: Limit | None = Field(None, description="Requests of one API key, as `600/minute`; empty: as many as it likes.")
    quota: Limit | None = Field(
        None, description="Texts of one API key, as `1000000/day`, also of files when a batch is made of them; empty: no end."
    )
    rate_limit_url: SecretStr | None = Field(
        None, description="redis://... that API processes count in together; empty: each for itself."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of /metrics, /livez and /readyz of a worker or dispatcher.")
    metrics_port: int | None = Field(None, ge=0, le=65_535, description="Its port; 0: any free one; empty: none.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="`console` for people.")

    @field_validator("data_dir", mode="after")
    @classmethod
    def _folder_is_absolute(cls, folder: pathlib.Path) -> pathlib.Path:
        if str(folder).startswith("~") and not _has_home():
            return folder  # whoever needs it says what is wrong
        return folder.expanduser().absolute()  # the embedded servers run elsewhere

    @field_validator("database_url", mode="after")
    @classmethod
    def _database_is_known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        scheme = url.get_secret_value().split(":", 1)[0]
        if scheme not in ("postgresql", "postgresql+psycopg"):
            raise ValueError(f"the scheme is {scheme[:20]!r}; allowed: postgresql, as postgresql://user:password@host/database")
        require_plain(url.get_secret_value())
        return url

    @field_validator("broker_url", "rate_limit_url", mode="after")
    @classmethod
    def _servers_are_urls(cls, urls: SecretStr | None) -> SecretStr | None:
        for url in urls.get_secret_value().split(";") if urls else ():
            require_plain(url)
        return urls

    @model_validator(mode="after")
    def _broker_is_known(self) -> Self:
        scheme = self.broker_url.get_secret_value().split(":", 1)[0] if self.broker_url else "redis"
        if scheme not in ("amqp", "amqps", "redis", "rediss", "redis+socket"):
            raise ValueError(f"broker_url has scheme {scheme!r}; allowed: amqp, amqps, redis, rediss, redis+socket")
        return self

    @model_validator(mode="after")
    def _key_with_database(self) -> Self:
        if self.database_url and not self.secret_key:
            raise ValueError("secret_key is needed with database_url: make one with `guardfleet keys secret`")
        return self

    @property
    def webhook_again_s(self) -> float:
        """How long a delivery that was published is taken to be under way."""
        return self.republish_s + self.webhook_timeout_s

    @property
    def is_embedded(self) -> bool:
        """Whether this process is to bring up its own PostgreSQL and broker."""
        return self.database_url is None

    def required(self, name: Literal["database_url", "broker_url", "secret_key"]) -> str:
        """The value of a setting this process cannot do without; raises ConfigurationError."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise ConfigurationError(f"{ENV_PREFIX}{name.upper()} is not set; `guardfleet up` and `scan` work without it.")
        return value.get_secret_value()

    def as_environment(self) -> dict[str, str]:
        """The variables that rebuild these settings in a child process (secrets included)."""
        out = {}
        for name, value in self.model_dump(mode="python", exclude_unset=True).items():
            if value is None:
                continue
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            text = ",".join(map(str, plain)) if isinstance(plain, tuple) else str(plain)
            out[ENV_PREFIX + name.upper()] = text
        return out


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Build the settings; raises ConfigurationError with one line per wrong key, values of secrets left out."""
    unknown = [
        key
        for key in environ or os.environ
        if key.startswith(ENV_PREFIX) and key[len(ENV_PREFIX) :].lower() not in Settings.model_fields
    ]
    if unknown:
        raise ConfigurationError(f"unknown setting {', '.join(sorted(unknown))}; docs/settings.md lists what exists.")
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(dict(item)) for item in error.errors(include_url=False))) from None


def _explain(item: dict[str, object]) -> str:
    where, *at = item["loc"] if isinstance(item["loc"], tuple) and item["loc"] else ("",)
    shown = "" if not where or _is_secret(where) else f" = {item.get('input')!r}"
    key = ENV_PREFIX + where.upper() if where else "settings"
    place = f", item {at[0] + 1}" if at and isinstance(at[0], int) else ""
    return f"{key}{place}{shown}: {str(item['msg']).removeprefix('Value error, ')}"


def _is_secret(name: str) -> bool:
    field = Settings.model_fields.get(name)
    return field is not None and SecretStr in get_args(field.annotation)

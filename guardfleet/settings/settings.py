"""Every setting, with its bound. Built once at an entry point and passed down; nothing else reads the environment."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from guardfleet.errors import ConfigurationError
from guardfleet.settings.groups import (
    ApiSettings,
    CacheSettings,
    ConsoleSettings,
    EngineSettings,
    IntakeSettings,
    RetentionSettings,
    WebhookSettings,
    WorkerSettings,
)
from guardfleet.settings.names import ALLOW_TUNING, DELIMITER, ENV_PREFIX, GUARDED, PLACES, placed, renamed
from guardfleet.settings.parsing import Listed, Served, each_once
from guardfleet.settings.server_urls import addresses, require_plain, require_redis
from guardfleet.settings.tuning import Tuning

HOMELESS = pathlib.Path("~/.local/share/guardfleet")  # kept literally: there is no home to replace ~ by


def default_data_dir() -> pathlib.Path:
    """Return where the embedded stack keeps its data: the user's data folder; for root /var/lib, as others cannot read its home."""
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/guardfleet")
    return HOMELESS.expanduser() if _has_home() else HOMELESS


def _has_home() -> bool:
    try:
        pathlib.Path.home()
    except RuntimeError:  # HOME is not set, and the user is not in passwd: as in a container
        return False
    return True


class Settings(BaseSettings):
    """The settings, read from `GUARDFLEET_*` variables; unknown names stop the process."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=DELIMITER, frozen=True, extra="forbid", hide_input_in_errors=True
    )
    _renamed: tuple[str, ...] = PrivateAttr(default=())  # variables that were given under old names

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15+, `postgresql://user:password@host/db`. Empty: embedded."
    )
    broker_url: SecretStr | None = Field(
        None, description="`amqp://` (RabbitMQ 3.10+, several joined by `;`) or `redis://` (Redis 6.2+). Empty: embedded Valkey."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="32 bytes, base64; encrypts texts and secrets at rest. Make one with `guardfleet keys secret`. Embedded: made.",
    )
    previous_secret_key: SecretStr | None = Field(
        None, description="The previous key, while it is being rotated out; still decrypts what it encrypted (docs/security.md)."
    )
    data_dir: pathlib.Path = Field(
        default_factory=default_data_dir, description="Folder for the embedded stack's data and for digests of model files."
    )
    namespace: str = Field(
        "guardfleet", pattern=r"^[a-z][a-z0-9_.-]{0,40}$", description="Prefix of queues, exchanges and Redis keys."
    )

    detectors: Annotated[tuple[Served, ...], NoDecode, Listed, AfterValidator(each_once)] = Field(
        default=(), description="Detectors that `up` runs and `scan` may, each with its model: `ai-text=demo,toxicity=/models/tox`."
    )
    engine: EngineSettings = EngineSettings()
    worker: WorkerSettings = WorkerSettings()
    intake: IntakeSettings = IntakeSettings()
    cache: CacheSettings = CacheSettings()
    retention: RetentionSettings = RetentionSettings()
    webhooks: WebhookSettings = WebhookSettings()
    api: ApiSettings = ApiSettings()
    console: ConsoleSettings = ConsoleSettings()
    tuning: Tuning = Tuning()

    api_url: str | None = Field(None, description="API to submit to, instead of the database: http://host:8080.")
    api_key: SecretStr | None = Field(None, description="API key for it, gf_...")
    metrics_host: str = Field("127.0.0.1", description="Address of a process's /metrics, /livez, /readyz and /healthz.")
    metrics_port: int | None = Field(None, ge=0, le=65_535, description="Their port; 0: any free one; empty: not served.")
    traces_url: str | None = Field(
        None, description="Where to send traces by OTLP over HTTP, as http://collector:4318/v1/traces. Empty: none are made."
    )
    price_per_device_hour: float | None = Field(
        None,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="What an hour of a device costs, in any currency: jobs then show their cost.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    log_format: Literal["json", "console"] = Field("json", description="`json` for machines, `console` for people.")

    @field_validator("data_dir", mode="after")
    @classmethod
    def _folder_is_absolute(cls, folder: pathlib.Path) -> pathlib.Path:
        if str(folder).startswith("~") and not _has_home():
            return folder  # whoever needs the folder reports it
        return folder.expanduser().absolute()  # the embedded servers run in another directory

    @field_validator("database_url", mode="after")
    @classmethod
    def _database_is_known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        scheme = url.get_secret_value().split(":", 1)[0]
        if scheme not in ("postgresql", "postgresql+psycopg"):
            raise ValueError(f"the scheme is {scheme[:20]!r}; allowed: postgresql, as postgresql://user:password@host/database")
        require_plain(url.get_secret_value(), many=True)
        return url

    @field_validator("broker_url", mode="after")
    @classmethod
    def _servers_are_urls(cls, urls: SecretStr | None) -> SecretStr | None:
        for url in urls.get_secret_value().split(";") if urls else ():
            require_plain(url)
            require_redis(url)
        return urls

    @model_validator(mode="after")
    def _broker_is_known(self) -> Self:
        scheme = self.broker_url.get_secret_value().split(":", 1)[0] if self.broker_url else "redis"
        if scheme not in ("amqp", "amqps", "redis", "rediss", "redis+socket"):
            raise ValueError(f"{ENV_PREFIX}BROKER_URL has the scheme {scheme!r}; allowed: amqp, amqps, redis, rediss, redis+socket")
        return self

    @model_validator(mode="after")
    def _key_with_database(self) -> Self:
        if self.database_url and not self.secret_key:
            raise ValueError(f"{ENV_PREFIX}SECRET_KEY is needed with a database: make one with `guardfleet keys secret`")
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether this process starts its own PostgreSQL and broker."""
        return self.database_url is None

    def required(self, name: Literal["database_url", "broker_url", "secret_key"]) -> str:
        """Return a setting that this process cannot do without. Raises ConfigurationError."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise ConfigurationError(f"{ENV_PREFIX}{name.upper()} is not set: set it, or use `guardfleet up` or `scan`.")
        return value.get_secret_value()

    @property
    def broker_address(self) -> str:
        """Host and port of the broker: what a log may say of its URL."""
        return addresses(self.required("broker_url"))

    @property
    def renamed(self) -> tuple[str, ...]:
        """The variables that were given under names from before 0.2."""
        return self._renamed

    def read_under(self, old: Iterable[str]) -> Self:
        """Record the old names under which settings were given; returns the settings."""
        self._renamed = tuple(sorted(old))
        return self

    def but(self, **changed: object) -> Self:
        """Return a copy with settings changed, by the names of `names.PLACES` or their own; does not validate again."""
        update: dict[str, object] = {}
        for name, value in placed(changed).items():
            group = getattr(self, name)
            update[name] = group.model_copy(update=value) if isinstance(value, dict) and isinstance(group, BaseModel) else value
        return self.model_copy(update=update)

    def with_own_model(self) -> Self:
        """Return a copy whose workers serve its model, whatever `guardfleet models` has deployed."""
        return self.model_copy(update={"engine": self.engine.model_copy(update={"follow_deployments": False})})

    def as_environment(self) -> dict[str, str]:
        """Return the variables that rebuild these settings in a child process (secrets included)."""
        out: dict[str, str] = {}
        for name in self.model_fields_set:
            value = getattr(self, name)
            if isinstance(value, Tuning):
                if value.model_fields_set:
                    out |= {f"{ENV_PREFIX}TUNING": value.model_dump_json(exclude_unset=True), ALLOW_TUNING: "1"}
            elif isinstance(value, BaseModel):
                inside = {f"{name}{DELIMITER}{leaf}": getattr(value, leaf) for leaf in value.model_fields_set}
                out |= {ENV_PREFIX + leaf.upper(): _plain(found) for leaf, found in inside.items() if found is not None}
            elif value is not None:
                out[ENV_PREFIX + name.upper()] = _plain(value)
        return out


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Build the settings. Raises ConfigurationError with one line per wrong name, without values of secrets.

    `overrides` are given by their own names, or by those from before the groups (`names.PLACES`).
    """
    given = {key: value for key, value in (environ or os.environ).items() if key.startswith(ENV_PREFIX)}
    old = _under_old_names(given)
    tuned = sorted(key for key in given if key.startswith(f"{ENV_PREFIX}TUNING"))
    if gone := next((name for name in GUARDED if name in old), None):
        raise ConfigurationError(
            f"{ENV_PREFIX}{gone.upper()} is no longer a setting: remove it. Load runs set {ENV_PREFIX}TUNING with {ALLOW_TUNING}=1."
        )
    if tuned and given.get(ALLOW_TUNING) != "1":
        raise ConfigurationError(f"{tuned[0]} is for tests and load runs only: set {ALLOW_TUNING}=1 too.")
    if unknown := [key for key in given if not is_known(key)]:
        raise ConfigurationError(f"unknown setting {', '.join(sorted(unknown))}; docs/settings.md lists all.")
    values = placed({**old, **{key: value for key, value in overrides.items() if value is not None}})
    try:
        made = Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(dict(item)) for item in error.errors(include_url=False))) from None
    except SettingsError as error:
        raise ConfigurationError(f"{error}.") from None
    return made.read_under(old)


def _under_old_names(given: Mapping[str, str]) -> dict[str, str]:
    found = renamed(given)
    for old, new in found.items():
        if new in given:
            raise ConfigurationError(f"{old} is the old name of {new}: set only one of them.")
    return {old.removeprefix(ENV_PREFIX).lower(): given[old] for old in found}


def is_known(key: str) -> bool:
    """Return whether an environment variable is a setting, under its own or its old name."""
    if key == ALLOW_TUNING:
        return True
    name = key.removeprefix(ENV_PREFIX).lower()
    if name in PLACES or (name in Settings.model_fields and (name == "tuning" or not _group(name))):
        return True
    group, found, leaf = name.partition(DELIMITER)
    fields = _group(group)
    return bool(found) and fields is not None and leaf in fields.model_fields


def _group(name: str) -> type[BaseModel] | None:
    field = Settings.model_fields.get(name)
    kind = None if field is None else field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _explain(item: dict[str, object]) -> str:
    where = [str(part) for part in item["loc"] if isinstance(part, str)] if isinstance(item["loc"], tuple) else []
    positions = [part for part in item["loc"] if isinstance(part, int)] if isinstance(item["loc"], tuple) else []
    shown = "" if not where or _is_secret(where) else f" = {item.get('input')!r}"
    said = str(item["msg"]).removeprefix("Value error, ")
    if not where:  # about several settings, which it names
        return said
    position = f", item {positions[0] + 1}" if positions else ""
    return f"{ENV_PREFIX}{DELIMITER.join(where).upper()}{position}{shown}: {said}"


def _is_secret(where: Sequence[str]) -> bool:
    fields = Settings.model_fields
    for name in where:
        field = fields.get(name)
        if field is None:
            return False
        if SecretStr in get_args(field.annotation):
            return True
        group = _group(name)
        fields = group.model_fields if group else {}
    return False

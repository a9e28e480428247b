"""The settings of each process, in groups: `GUARDFLEET_WEBHOOKS__TIMEOUT_S` is `timeout_s` of `webhooks`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from guardfleet.domain.actions import LEAST_DAYS
from guardfleet.domain.detection import DETECTOR_NAME
from guardfleet.domain.verdict import GUARD
from guardfleet.settings.parsing import Delay, Granted, Limit, Listed, Network
from guardfleet.settings.server_urls import require_plain


class Group(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class EngineSettings(Group):
    """Model, device and prompts of a worker."""

    model: str = Field(default="demo", description="A hub name (`Qwen/Qwen3Guard-Gen-0.6B`), a folder, or `demo`.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub model; pin it in production.")
    detector: str = Field(
        default=GUARD,
        pattern=rf"^{DETECTOR_NAME.pattern}$",
        description="What the model judges as: `guard`, or a detector's name, such as `ai-text`, for jobs that name it.",
    )
    neutral_label: str = Field(
        default="", max_length=200, description="The label of a detector's model that finds nothing; empty: known by its name."
    )
    window_rule: Literal["max", "mean", "share"] = Field(
        default="max", description="How a detector's windows of a long text become one: the least neutral, the mean, or shares."
    )
    min_tokens: int = Field(
        default=0, ge=0, le=100_000, description="A detector says `too_short` of texts with fewer tokens; 0: of empty ones only."
    )
    reasons: bool = Field(
        default=False,
        description="Ask a detector for the model's own words on why, if it can give them; not of neutral labels; far slower.",
    )
    follow_deployments: bool = Field(
        default=True,
        description="Serve what `guardfleet models deploy` has rolled out instead of `model`; `named_only` workers never do.",
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$", description="`auto` uses the GPU if there is one."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="`auto`: bf16 if the device computes in it."
    )
    quantize: Literal["none", "int8", "fp8"] = Field(
        default="none", description="Hold the layers' matrices in 8 bits; measure first: `guardfleet evaluate FILE --against int8`."
    )
    batch_tokens: int = Field(
        default=0,
        ge=0,
        le=1_048_576,
        description="Tokens in one forward pass; 0: as many as fit on the device, determined at the start.",
    )
    window_tokens: int = Field(
        default=8192,
        ge=256,
        le=131_072,
        description="Longest prompt judged at once, in tokens, policy included; also the number of the model's positions.",
    )
    long_texts: Literal["windows", "head", "tail", "ends"] = Field(
        default="windows", description="How to judge a text longer than a window: all of it, its beginning, its end, or both."
    )
    role_labels: Literal["neutralise", "keep"] = Field(
        default="neutralise",
        description="Lines of a text that look like turns (`USER: ...`): neutralise them for the model, or keep them as they are.",
    )
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads of the model; 0: all cores.")

    @model_validator(mode="before")
    @classmethod
    def _as_the_demo_was_trained(cls, given: Any) -> Any:
        """Take what the demo model for `ai-text` needs: 30 tokens, and means over windows; what is set otherwise stands."""
        if isinstance(given, dict) and given.get("detector") == "ai-text" and given.get("model", "demo") == "demo":
            return {"window_rule": "mean", "min_tokens": 30} | given
        return given

    def judging_as(self, detector: str, model: str | None = None) -> "EngineSettings":
        """Return the settings of a worker that is started as this detector, with this model if it is given."""
        given = self.model_dump(exclude_unset=True) | {"detector": detector}
        return EngineSettings.model_validate(given if model is None else given | {"model": model})


class WorkerSettings(Group):
    """How a worker takes work."""

    concurrency: int = Field(default=4, ge=1, le=64, description="Shards that one worker process works on at once.")
    named_only: bool = Field(
        default=False, description="Take only jobs that name this worker's model: for the second model of a cascade."
    )


class IntakeSettings(Group):
    """How texts are taken in, by every process that submits."""

    shard_texts: int = Field(default=1024, ge=1, le=8192, description="Texts in one shard; one shard should take 5-30 s.")
    max_text_bytes: int = Field(default=8 << 20, ge=1, le=256 << 20, description="Largest text accepted, bytes.")
    max_backlog_texts: int = Field(
        default=100_000_000, ge=1, description="Reject new jobs (429) while this many texts of all jobs are pending."
    )


class CacheSettings(Group):
    """Which stored verdicts are reused for equal texts."""

    hours: float = Field(default=24.0, ge=0.0, le=8760.0, description="Reuse verdicts up to this age for the same text; 0: never.")
    across_tenants: bool = Field(default=False, description="Reuse one tenant's verdicts for another; the same in all workers.")


class RetentionSettings(Group):
    """How long texts, verdicts and the audit trail are kept."""

    text_hours: float = Field(default=24.0, ge=0.0, le=8760.0, description="Delete texts this long after their job ended.")
    verdict_days: float = Field(
        default=90.0, ge=1.0, le=36_500.0, description="Drop jobs and their verdicts by day, this long after the day of submission."
    )
    audit_days: float = Field(
        default=400.0, ge=LEAST_DAYS, le=36_500.0, description="Delete rows of the audit trail by day, this long after their day."
    )


class WebhookSettings(Group):
    """How webhooks are delivered."""

    schedule_s: Annotated[tuple[Delay, ...], NoDecode, Listed] = Field(
        default=(0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="Delays before each attempt, s, separated by commas.",
    )
    timeout_s: float = Field(default=15.0, gt=0.0, le=120.0, description="Total time of one attempt, s.")
    allow_networks: Annotated[tuple[Network, ...], NoDecode, Listed] = Field(
        default=(),
        description="Private networks that webhooks may reach, as `10.0.0.0/8,fc00::/7`; other non-public addresses are refused.",
    )


class ApiSettings(Group):
    """The HTTP API."""

    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port of the API; 0: any free one.")
    max_body_bytes: int = Field(default=512 << 20, ge=1, description="Largest body of a batch, decompressed, bytes.")
    moderation_timeout_s: float = Field(default=30.0, gt=0.0, le=300.0, description="Longest wait for a verdict, s.")
    files_url: str | None = Field(
        default=None, description="Where uploaded files are: a folder, s3://bucket/prefix (with s3fs), ...; empty: in data_dir."
    )
    files_max_bytes: int = Field(default=512 << 20, ge=1, description="Largest uploaded file, bytes.")
    rate_limit: Limit | None = Field(default=None, description="Requests of one API key, as `600/minute`; empty: unlimited.")
    quota: Limit | None = Field(
        default=None,
        description="Texts of one API key, as `1000000/day`, counted for files when a batch is made of them; empty: unlimited.",
    )
    rate_limit_url: SecretStr | None = Field(
        default=None, description="redis://... that API processes share their counts in; empty: each counts for itself."
    )
    perspective_map: str | None = Field(
        default=None, description="File of `guardfleet evaluate --map-perspective`; scores on Perspective's routes go through it."
    )

    @field_validator("rate_limit_url", mode="after")
    @classmethod
    def _server_is_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            require_plain(url.get_secret_value())
        return url


class ConsoleSettings(Group):
    """The console: pages in the API process, and who may sign in."""

    enabled: bool = Field(default=True, description="Serve the console at /console/.")
    session_hours: float = Field(default=12.0, gt=0.0, le=720.0, description="A session ends this long after signing in.")
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+$",
        description="How browsers reach the API, as `https://moderation.example.com`, if a proxy is in front; for OpenID Connect.",
    )
    oidc_issuer: str | None = Field(
        default=None, pattern=r"^https?://\S+$", description="OpenID Connect: the issuer's URL. Empty: API keys alone sign in."
    )
    oidc_client_id: str | None = Field(default=None, description="The client id that the issuer knows guardfleet by.")
    oidc_client_secret: SecretStr | None = Field(default=None, description="Its client secret.")
    oidc_claim: str = Field(default="groups", description="The claim whose values say what somebody may do.")
    oidc_roles: Annotated[tuple[Granted, ...], NoDecode, Listed] = Field(
        default=(),
        description="What values of the claim grant: `VALUE=ROLE` or `VALUE=ROLE@TENANT`, as `ts-team=reviewer,leads=admin@acme`.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> "ConsoleSettings":
        needed = (self.oidc_client_id, self.oidc_client_secret, self.oidc_roles, self.public_url)
        if self.oidc_issuer and not all(needed):
            raise ValueError("oidc_issuer needs oidc_client_id, oidc_client_secret, oidc_roles and public_url")
        return self

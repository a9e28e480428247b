"""Values that tests and load runs change, and production does not; they have no variables of their own.

All come as one JSON object in `GUARDFLEET_TUNING`, which is refused unless `GUARDFLEET_ALLOW_TUNING` is `1`, so that no single
variable can switch to the engine that judges nothing.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LEASE_RENEWALS = 3  # a lease survives two lost renewals


class Tuning(BaseModel):
    """Limits and pauses of the machinery; production uses the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["model", "instant"] = Field(default="model", description="`instant` judges nothing.")
    instant_ms_per_batch: float = Field(
        default=0.0, ge=0.0, le=60_000.0, description="Sleep of the instant engine for a batch, ms."
    )
    engine_stall_s: float = Field(
        default=300.0, ge=1.0, le=86_400.0, description="End the process if a batch on the device takes longer, s."
    )
    compile: bool = Field(default=False, description="Fuse norms, rotations and gates with torch.compile.")
    streams: int = Field(default=0, ge=0, le=64, description="Batches run in parallel on a CPU; 0: automatic.")
    window_overlap: int = Field(default=512, ge=1, le=65_536, description="Tokens that neighbouring windows share.")
    max_windows: int = Field(default=64, ge=1, le=4096, description="Most windows of a text; one that needs more is an error.")
    shard_bytes: int = Field(default=4 << 20, ge=1024, le=64 << 20, description="Close a shard early at this many bytes of text.")
    prefetch_window: int = Field(default=32, ge=1, le=10_000, description="Most messages published and not yet taken, per queue.")
    tick_s: float = Field(default=0.25, ge=0.01, le=60.0, description="Pause of the dispatcher when there is nothing to do, s.")
    republish_s: float = Field(default=10.0, ge=0.2, le=3600.0, description="Age at which a lost message is published again, s.")
    lease_s: float = Field(default=45.0, ge=1.0, le=3600.0, description="Time after which a dead worker's shard is taken back, s.")
    max_claims: int = Field(default=6, ge=1, le=100, description="Claims, crashes included, before a shard is bisected.")
    max_failures: int = Field(default=5, ge=1, le=100, description="Failures, each retried, before a shard is bisected.")
    retry_base_s: float = Field(default=2.0, gt=0.0, le=3600.0, description="First retry delay, s; doubles.")
    retry_cap_s: float = Field(default=300.0, gt=0.0, le=86_400.0, description="Longest retry delay, s.")
    stall_s: float = Field(
        default=300.0, ge=1.0, le=86_400.0, description="A queue is stalled if nobody takes work from it for this long, s."
    )
    intake_idle_s: float = Field(default=3600.0, ge=1.0, le=604_800.0, description="Abandon an interrupted submit after this.")
    webhook_at_once: int = Field(default=4, ge=1, le=32, description="Most concurrent deliveries to one receiver.")
    webhook_disable_days: float = Field(default=5.0, gt=0.0, le=365.0, description="Disable an endpoint that fails for this long.")
    api_max_json_bytes: int = Field(default=16 << 20, ge=1 << 16, description="Largest JSON body of a request.")
    api_max_connections: int = Field(default=1000, ge=1, le=100_000, description="Most connections of one API process.")
    api_max_waiting: int = Field(default=300, ge=1, le=100_000, description="Most requests of one API key that wait for news.")
    api_head_s: float = Field(default=10.0, gt=0.0, le=600.0, description="Longest time for a request's head, s.")
    api_pause_s: float = Field(default=60.0, gt=0.0, le=3600.0, description="Time in which a body must bring at least 1 KiB, s.")

    def redelivery_s(self, timeout_s: float) -> float:
        """Return how long a delivery that was published counts as under way, if an attempt may take `timeout_s`."""
        return self.republish_s + timeout_s

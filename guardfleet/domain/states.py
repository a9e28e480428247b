"""The states of jobs, shards, deliveries, uploaded files and deployments, and the transitions between them.

`TRANSITIONS` is the one table: its keys are functions of the store, and a test compares docs/states.md with it.
"""

from collections.abc import Mapping
from enum import IntEnum


class JobState(IntEnum):
    """The state of a job; stored as its number."""

    INGESTING = 0  # set by create(); a crash leaves it so until resume() or abandon()
    RUNNING = 1  # set by seal(): every shard is committed
    COMPLETED = 2  # set by the finish() that records the last text's verdict
    CANCELLING = 3  # set by cancel() and expire() while shards are still leased
    CANCELLED = 4  # set by cancel(), or by the dispatcher once the last lease is gone
    FAILED = 5  # set by abandon(): the input could not be read to its end
    EXPIRED = 6  # set by expire() and settle_cancelled(), like CANCELLED: its completion window is over

    @property
    def label(self) -> str:
        """Lower-case name, as shown to users."""
        return self.name.lower()

    @property
    def is_final(self) -> bool:
        """Whether the job has ended for good."""
        return self in (JobState.COMPLETED, JobState.CANCELLED, JobState.FAILED, JobState.EXPIRED)


BATCH_STATUS: Mapping[JobState, str] = {  # OpenAI's words
    JobState.INGESTING: "validating",
    JobState.RUNNING: "in_progress",
    JobState.COMPLETED: "completed",
    JobState.CANCELLING: "cancelling",
    JobState.CANCELLED: "cancelled",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
}


class ShardState(IntEnum):
    """The state of a shard; stored as its number."""

    READY = 0  # set at intake, by fail(), release(), postpone() and rescue(); due once next_attempt_at has passed
    LEASED = 1  # set by claim(); a crash leaves it so until lease_until, then rescue() sets READY
    DONE = 2  # set by finish(), in the same commit as its verdicts
    CANCELLED = 3  # set by cancel() and abandon(), and by fail/release/rescue once the job is ending


class WorkerState(IntEnum):
    """The state of a worker process; stored as its number. A crash leaves it, and `worker.seen_at` grows old."""

    LOADING = 0  # the model
    READY = 1  # takes work
    STOPPED = 2  # ended in order

    @property
    def label(self) -> str:
        """Lower-case name, as in metrics."""
        return self.name.lower()


class DeliveryState(IntEnum):
    """The state of one webhook delivery; stored as its number."""

    PENDING = 0  # set by relay() and defer(); due once next_attempt_at has passed
    SENDING = 1  # set by claim(); a crash leaves it so until lease_until, then it is due again
    DELIVERED = 2  # set by settle() after a 2xx
    EXHAUSTED = 3  # set by settle() after the last attempt, or after 410 Gone


class FileState(IntEnum):
    """The state of an uploaded file; stored as its number."""

    UPLOADING = 0  # set by create(); a crash leaves it so, and it expires a day later
    WHOLE = 1  # set by complete(): from now on it is listed
    DELETED = 2  # set by delete() and expire(): the key of its content is gone, so the rest is noise
    REMOVED = 3  # set by removed(): the file storage has deleted its content


class DeploymentState(IntEnum):
    """The state of a deployment; stored as its number. Of one detector, one is ACTIVE at most, and one a candidate at most."""

    SHADOW = 0  # set by begin(): it judges a share of the texts again, and nobody is told
    CANARY = 1  # set by begin(): workers that have both models judge a share of the shards with it
    ROLLING = 2  # set by begin(), advance() and promote(): workers change to it, one after the other
    ACTIVE = 3  # set by settle() once all workers serve it, and by roll_back() of the one after it
    HALTED = 4  # set by halt() because it failed, and by stop(); workers go back to what was active
    ROLLED_BACK = 5  # set by roll_back()
    SUPERSEDED = 6  # set by settle() of the next one

    @property
    def label(self) -> str:
        """Lower-case name, as shown to users."""
        return self.name.lower()


TRANSITIONS: Mapping[type[IntEnum], Mapping[str, tuple[tuple[IntEnum, IntEnum], ...]]] = {
    JobState: {
        "seal": ((JobState.INGESTING, JobState.RUNNING), (JobState.INGESTING, JobState.COMPLETED)),
        "abandon": ((JobState.INGESTING, JobState.FAILED),),
        "finish": ((JobState.RUNNING, JobState.COMPLETED),),
        "cancel": (
            (JobState.INGESTING, JobState.CANCELLED),
            (JobState.INGESTING, JobState.CANCELLING),
            (JobState.RUNNING, JobState.CANCELLED),
            (JobState.RUNNING, JobState.CANCELLING),
        ),
        "expire": (
            (JobState.INGESTING, JobState.EXPIRED),
            (JobState.INGESTING, JobState.CANCELLING),
            (JobState.RUNNING, JobState.EXPIRED),
            (JobState.RUNNING, JobState.CANCELLING),
        ),
        "settle_cancelled": ((JobState.CANCELLING, JobState.CANCELLED), (JobState.CANCELLING, JobState.EXPIRED)),
    },
    ShardState: {
        "claim": ((ShardState.READY, ShardState.LEASED), (ShardState.LEASED, ShardState.LEASED)),
        "finish": ((ShardState.LEASED, ShardState.DONE),),
        "fail": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "release": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "pass_on": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "postpone": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "rescue": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "bisect": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "erase": ((ShardState.LEASED, ShardState.READY), (ShardState.LEASED, ShardState.CANCELLED)),
        "cancel": ((ShardState.READY, ShardState.CANCELLED),),
        "expire": ((ShardState.READY, ShardState.CANCELLED),),
        "abandon": ((ShardState.READY, ShardState.CANCELLED), (ShardState.LEASED, ShardState.CANCELLED)),
    },
    DeliveryState: {
        "claim": ((DeliveryState.PENDING, DeliveryState.SENDING), (DeliveryState.SENDING, DeliveryState.SENDING)),
        "settle": ((DeliveryState.SENDING, DeliveryState.DELIVERED), (DeliveryState.SENDING, DeliveryState.EXHAUSTED)),
        "defer": ((DeliveryState.SENDING, DeliveryState.PENDING),),
    },
    FileState: {
        "complete": ((FileState.UPLOADING, FileState.WHOLE),),
        "delete": ((FileState.WHOLE, FileState.DELETED),),
        "erase": ((FileState.WHOLE, FileState.DELETED),),
        "expire": ((FileState.UPLOADING, FileState.DELETED), (FileState.WHOLE, FileState.DELETED)),
        "removed": ((FileState.DELETED, FileState.REMOVED),),
    },
    DeploymentState: {
        "advance": ((DeploymentState.CANARY, DeploymentState.ROLLING), (DeploymentState.CANARY, DeploymentState.HALTED)),
        "promote": ((DeploymentState.SHADOW, DeploymentState.ROLLING), (DeploymentState.CANARY, DeploymentState.ROLLING)),
        "settle": ((DeploymentState.ROLLING, DeploymentState.ACTIVE), (DeploymentState.ACTIVE, DeploymentState.SUPERSEDED)),
        "halt": (
            (DeploymentState.SHADOW, DeploymentState.HALTED),
            (DeploymentState.CANARY, DeploymentState.HALTED),
            (DeploymentState.ROLLING, DeploymentState.HALTED),
        ),
        "stop": (
            (DeploymentState.SHADOW, DeploymentState.HALTED),
            (DeploymentState.CANARY, DeploymentState.HALTED),
            (DeploymentState.ROLLING, DeploymentState.HALTED),
        ),
        "roll_back": (
            (DeploymentState.CANARY, DeploymentState.ROLLED_BACK),
            (DeploymentState.ROLLING, DeploymentState.ROLLED_BACK),
            (DeploymentState.ACTIVE, DeploymentState.ROLLED_BACK),
            (DeploymentState.SUPERSEDED, DeploymentState.ACTIVE),
        ),
    },
}

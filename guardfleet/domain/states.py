"""The states of jobs, shards, deliveries and uploaded files, and the moves between them.

`TRANSITIONS` is the one table: the store's verbs are its edges, and docs/states.md is held against it by a test.
"""

from collections.abc import Mapping
from enum import IntEnum


class JobState(IntEnum):
    """Where a job is; stored as its number."""

    INGESTING = 0  # set by create(); a crash leaves it so, until resume() or, given up, abandon()
    RUNNING = 1  # set by seal(): every shard is committed
    COMPLETED = 2  # set by the finish() that settles the last text
    CANCELLING = 3  # set by cancel() and expire() while shards are still leased
    CANCELLED = 4  # set by cancel(), or by the dispatcher once the last lease is gone
    FAILED = 5  # set by abandon(): the input could not be taken in
    EXPIRED = 6  # set by expire() and settle_cancelled(), as CANCELLED is: its completion window was over

    @property
    def label(self) -> str:
        """Lower-case name, as shown to users."""
        return self.name.lower()

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in (JobState.COMPLETED, JobState.CANCELLED, JobState.FAILED, JobState.EXPIRED)


BATCH_STATUS: Mapping[JobState, str] = {  # what OpenAI calls them
    JobState.INGESTING: "validating",
    JobState.RUNNING: "in_progress",
    JobState.COMPLETED: "completed",
    JobState.CANCELLING: "cancelling",
    JobState.CANCELLED: "cancelled",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
}


class ShardState(IntEnum):
    """Where a shard is; stored as its number."""

    READY = 0  # set at ingest, by fail(), release(), postpone() and rescue(); due when next_attempt_at has passed
    LEASED = 1  # set by claim(); a crash leaves it so until lease_until, then rescue() takes it back
    DONE = 2  # set by finish(): its verdicts are in the same commit
    CANCELLED = 3  # set by cancel() and abandon(), and by fail/release/rescue once the job is ending


class DeliveryState(IntEnum):
    """Where one webhook delivery is; stored as its number."""

    PENDING = 0  # set by relay() and defer(); due when next_attempt_at has passed
    SENDING = 1  # set by claim(); a crash leaves it so until lease_until, then it is due again
    DELIVERED = 2  # set by settle() after a 2xx
    EXHAUSTED = 3  # set by settle() after the last attempt, or after 410 Gone


class FileState(IntEnum):
    """Where an uploaded file is; stored as its number."""

    UPLOADING = 0  # set by create(); a crash leaves it so, and a day later it expires
    WHOLE = 1  # set by complete(): from now on it is seen
    DELETED = 2  # set by delete() and expire(): the key that opens its content is gone, so what is left of that is noise
    REMOVED = 3  # set by removed(): its content is gone from the file storage


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
        "expire": ((FileState.UPLOADING, FileState.DELETED), (FileState.WHOLE, FileState.DELETED)),
        "removed": ((FileState.DELETED, FileState.REMOVED),),
    },
}

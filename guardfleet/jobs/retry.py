"""Judge the failed texts of an ended job again, as a new job that is linked to it (docs/retry.md).

The texts are decrypted and encrypted anew under the new job's key, shard by shard, through the same intake as any other text: a
retry that is interrupted is resumed by the same call.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from guardfleet.domain.verdict import ERROR_CODES
from guardfleet.errors import ConfigurationError, LineError, RejectedError
from guardfleet.jobs.intake import LOOK_AGAIN_S, Intake
from guardfleet.jobs.submit import open_job
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.jobs import intake, intake_recovery, retries, texts
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.intake import OpenJob
from guardfleet.store.jobs.retries import Counts, Failed, OpenRetryError, Places
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database

TRIES = 5
WAITS_S = intake.INTAKE_LEASE_S + 2.0  # for a filling that was killed: its lease is over by then
GONE = "its text was purged or cannot be decrypted: it keeps the error that it has"
Also = Callable[[Any, uuid.UUID], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A retry before it exists: the job, the error codes, how many texts; or `earlier`, the same retry if it has not ended.

    `newest`: up to this one, all retries were filled when the texts were counted.
    """

    job: JobView
    codes: tuple[str, ...]
    texts: int = 0
    newest: int = 0
    earlier: JobView | None = None
    callback_url: str | None = None
    new: NewJob = field(default_factory=NewJob, repr=False)

    @property
    def fingerprint(self) -> bytes:
        """What makes two retries the same: the job and the error codes."""
        return hashlib.sha256(f"retry {self.job.public_id} {','.join(self.codes)}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Retry:
    """The new job; `is_new` is False if the same retry was begun before and has not ended."""

    job: JobView
    is_new: bool


def judge_again(db: Database, keyring: Keyring, settings: Settings, job: JobView, codes: Sequence[str] = ()) -> Retry:
    """Judge the job's failed texts again, or those with these error codes. Raises as `wanted` and `start`."""
    return start(db, keyring, settings, wanted(db, keyring, job, codes))


def wanted(db: Database, keyring: Keyring, job: JobView, codes: Sequence[str] = ()) -> Wanted:
    """Return what a retry of the job would judge. Raises RejectedError if there is nothing, or if it cannot be."""
    if unknown := [code for code in codes if code not in ERROR_CODES]:
        raise RejectedError(f"there is no error code {unknown[0]!r}; use one of {', '.join(ERROR_CODES)}.", param="error")
    if not job.state.is_final:
        raise RejectedError(f"{job.label} has not ended: retry it once it has, or cancel it first.")
    asked = Wanted(job, tuple(sorted(set(codes))))
    newest = retries.newest_filled(db, job)
    earlier = retries.unended(db, asked.fingerprint, tenant_id=job.tenant_id)
    found = Counts() if earlier else retries.count(db, job, asked.codes)
    if earlier is None:
        _require(db, job, found, asked.codes)
    options, secret, endpoint = retries.options_of(db, keyring, job)
    first = job.origin_id
    new = NewJob(options, job.tenant_id, fingerprint=asked.fingerprint, callback_secret=secret, endpoint=endpoint, retry_of=first)
    return Wanted(job, asked.codes, found.wanted, newest, earlier, options.callback_url, new)


def _require(db: Database, job: JobView, found: Counts, codes: Sequence[str]) -> None:
    """Raise RejectedError that says why no text of the job can be judged again."""
    if not found.failed:
        raise RejectedError(f"{job.label} has no failed texts: there is nothing to judge again.")
    if not found.wanted:
        why = [
            *([f"{found.judged:,} got a verdict from a retry"] if found.judged else []),
            *([f"{found.in_work:,} are in {', '.join(retries.unended_of(db, job))}, which has not ended"] if found.in_work else []),
            *([f"{found.left:,} have another error than {', '.join(codes)}"] if found.left else []),
        ]
        raise RejectedError(f"nothing to judge again: of {found.failed:,} failed texts of {job.label}, {', '.join(why)}.")
    if job.purged_at is not None:
        raise RejectedError(
            f"the texts of {job.label} were purged on {job.purged_at:%Y-%m-%d %H:%M} UTC: {found.wanted:,} failed texts"
            " cannot be judged again. Submit them as a new job."
        )


def start(
    db: Database,
    keyring: Keyring,
    settings: Settings,
    asked: Wanted,
    *,
    addresses: Sequence[str] | None = None,
    also: Also = lambda connection, public_id: None,
) -> Retry:
    """Make the retry and fill it; return the same one if it was begun before, resumed if its filling was interrupted.

    `also` runs in the transaction that creates the job, or in one of its own if the job exists. Raises OpenRetryError while another
    retry of the same job is being filled, RejectedError if others have taken all texts by then, and as `submit.open_job` does.
    """
    for left in reversed(range(TRIES)):
        if cut := _cut_short(db, asked):
            _tell(db, cut.public_id, also)
            return Retry(_filled(db, keyring, settings, asked, cut), is_new=False)
        if earlier := retries.unended(db, asked.fingerprint, tenant_id=asked.job.tenant_id):
            _tell(db, earlier.public_id, also)
            return Retry(earlier, is_new=False)
        try:
            if asked.earlier is not None:  # it has ended by now, and its texts were not counted
                asked = wanted(db, keyring, asked.job, asked.codes)
            opened = open_job(db, keyring, settings, asked.new, addresses=addresses, also=_admission(asked, also))
        except OpenRetryError as other:
            if not left or not (other.same or other.is_filled or other.idle_token is not None):
                raise
            if other.is_filled and not other.same:
                asked = wanted(db, keyring, asked.job, asked.codes)
            elif not other.same and other.idle_token is not None:
                with suppress(RejectedError):
                    intake.abandon(db, other.job_id, "its filling was interrupted, and another retry began", token=other.idle_token)
        else:
            return Retry(_filled(db, keyring, settings, asked, opened), is_new=True)
    raise AssertionError("the last try returns or raises")


def _admission(asked: Wanted, also: Also) -> Also:
    def admit(connection: Any, public_id: uuid.UUID) -> None:
        retries.admit(connection, public_id, asked.job, asked.fingerprint, asked.codes, newest_filled=asked.newest)
        also(connection, public_id)

    return admit


def _cut_short(db: Database, asked: Wanted) -> OpenJob | None:
    """Take over the filling of the same retry from one that was killed, waiting for its lease; None if it goes on or has ended."""
    fingerprint, tenant_id = asked.fingerprint, asked.job.tenant_id
    first = intake_recovery.intake_of(db, fingerprint, tenant_id=tenant_id)
    ends = time.monotonic() + WAITS_S
    while (
        first is not None and time.monotonic() < ends and intake_recovery.intake_of(db, fingerprint, tenant_id=tenant_id) == first
    ):
        if found := intake_recovery.take_over(db, fingerprint, tenant_id=tenant_id):
            return found
        time.sleep(LOOK_AGAIN_S)
    return None


def _tell(db: Database, public_id: uuid.UUID, also: Also) -> None:
    with db.begin() as connection:
        also(connection, public_id)


def _filled(db: Database, keyring: Keyring, settings: Settings, asked: Wanted, opened: OpenJob) -> JobView:
    places = Places(db, asked.job)
    with Intake(db, keyring, settings, asked.new, opened=opened) as filling:
        for found in retries.failed(db, asked.job, asked.codes, after_line=opened.line):
            filling.add_all(_again(db, keyring, asked.job, places, found))
            filling.keep()
        return filling.seal()


def _again(
    db: Database, keyring: Keyring, job: JobView, places: Places, found: Sequence[Failed]
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Yield the texts, each with its place in the first job, from 1. One that no longer exists is refused, and keeps its error."""
    for place, group in groupby(found, key=lambda each: places.of(each.seq)):
        rows: Sequence[PayloadRow] = ()
        if place is not None:
            with suppress(ConfigurationError):  # open_job has checked the secret key, so it is the shard that is damaged
                rows = texts.of_shard(db, keyring, job, place[0])
        for each in group:
            line, at = each.of_seq + 1, each.seq - (place[1] if place else 0)
            is_kept = at < len(rows) and not rows[at].is_erased
            yield line, rows[at] if is_kept else LineError(line, "text_gone", GONE)

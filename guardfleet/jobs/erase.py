"""Erase one person's data, or a job, and put texts under a legal hold.

An erasure goes through the tenant's jobs by age. A job that is still being filled may bring such a text later, from an input that
was read before; it is searched again once it is filled, and until then the erasure is not finished. A retry is younger than the job
that it takes texts from, so it is searched after that one was erased, and can bring none back.

It may be killed anywhere, or stop because its time is over: the same request goes on where it was.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guardfleet.domain import ids
from guardfleet.domain.targets import Kind, Targets
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import holds, installation
from guardfleet.store.erasure import inputs, receipts, statistics, texts, whole_jobs
from guardfleet.store.erasure import search as searching
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.erasure.search import SearchedJob
from guardfleet.store.holds import Hold
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database

NO_LIMIT = float("inf")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is meant of a tenant: targets, in one job or in all; or a job as a whole. Raises RejectedError if it is nothing."""

    tenant_id: int
    targets: Targets = field(default_factory=Targets)
    job: str | None = None  # its public id, or that of the answer to a request whose caller waited: `modr-...`

    def __post_init__(self) -> None:
        """Check it."""
        if not len(self.targets) and self.job is None:
            raise RejectedError("name what is meant: ids, subjects or a job.")
        if self.job is None:
            self.targets.require_job()

    def view(self, db: Database) -> JobView | None:
        """Return the job. Raises NotFoundError, for another tenant's job too."""
        return None if self.job is None else views.get(db, self.job_id, tenant_id=self.tenant_id)

    @property
    def job_id(self) -> uuid.UUID:
        """The public id of the job. Raises NotFoundError for what cannot be one."""
        return ids.JOB.parse((self.job or "").removeprefix(ids.MODERATION.prefix))


@dataclass(frozen=True, slots=True)
class Counts:
    """What an erasure would meet: texts, those of them on hold, the jobs they are in, and shards that cannot be decrypted."""

    texts: int
    held: int
    jobs: int
    unread: int


@dataclass
class Erasing:
    """One call that goes on with an erasure, for `budget_s` at most."""

    db: Database
    keyring: Keyring
    asked: Asked
    job: JobView | None
    receipt: Receipt
    held: Targets
    ends_at: float
    on_progress: Callable[[int], None]

    @property
    def is_over(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() >= self.ends_at

    def texts(self) -> bool:
        """Go through all jobs, then again through those that were being filled; return whether none is left but what waits."""
        while self._walk():
            if not self._look_again():  # else what was filled meanwhile may have been retried meanwhile
                return True
        return False

    def _walk(self) -> bool:
        """Search the jobs that were not searched yet; return whether none is left."""
        receipt, job = receipts.by_id(self.db, self.receipt.id), self.job
        after = receipt.reached_job
        for group in searching.groups(self.db, receipt.tenant_id, after=after, job_id=None if job is None else job.id):
            waits, last = [one.id for one in group if one.is_ingesting], group[-1].id
            held, unread = self._group(group)
            receipts.reach(self.db, receipt.id, before=after, job_id=last, waits=waits, held=held, unread=unread)
            after = last
            if self.is_over:
                return False
        return True

    def _look_again(self) -> bool:
        """Search the jobs that are filled by now; return whether there were any."""
        receipt = receipts.by_id(self.db, self.receipt.id)
        there = {job.id: job for job in searching.some(self.db, receipt.tenant_id, receipt.waiting)}
        filled = [job_id for job_id in receipt.waiting if job_id not in there or not there[job_id].is_ingesting]
        for job_id in filled:
            if job_id in there:
                held, unread = self._group([there[job_id]])
                with self.db.begin() as connection:
                    n = texts.around(connection, there[job_id], 0)
                    receipts.add(connection, receipt.id, requests=n)
                receipts.no_longer(self.db, receipt.id, job_id, held=held, unread=unread)
            else:
                receipts.no_longer(self.db, receipt.id, job_id, held=0)
        return bool(filled)

    def _group(self, group: Sequence[SearchedJob]) -> tuple[int, int]:
        """Erase what is found in the jobs; return how many texts are held there, and how many shards could not be read.

        Neither is counted of jobs that are still being filled: they are searched again.
        """
        texts.forget_refused(self.db, self.receipt.id, group, list(self.asked.targets.ids - self.held.ids))
        held = unread = 0
        for found in searching.search(self.db, self.keyring, group, self.asked.targets, self.held):
            if found.seqs:
                self.on_progress(texts.erase(self.db, self.keyring, self.receipt.id, found.job, sorted(found.seqs)))
            if not found.job.is_ingesting:
                held, unread = held + len(found.held), unread + found.unread
        return held, unread

    def whole(self) -> bool:
        """Erase the job and its retries as a whole, unless one is on hold; return whether nothing is left to do.

        Until the job is gone somebody may begin another retry, which takes texts along: so they are looked for once more.
        """
        job_id = self.receipt.job_id or 0
        family = family_of(self.db, self.receipt.tenant_id, job_id)
        on_hold = [one for one in family if whole_jobs.is_held(self.db, one)]
        if on_hold:
            receipts.hold_back(self.db, self.receipt.id, sum(one.total for one in on_hold))
            return True
        while family:
            for one in family:
                whole_jobs.stop(self.db, one)
                for is_free in whole_jobs.erase_verdicts(self.db, self.receipt.id, one):
                    if is_free and self.is_over:
                        return False
                if not whole_jobs.erase(self.db, self.receipt.id, self.receipt.tenant_id, one):
                    receipts.hold_back(self.db, self.receipt.id, one.total)
                    return True
                self.on_progress(one.total)
            family = family_of(self.db, self.receipt.tenant_id, job_id)
        return True


def family_of(db: Database, tenant_id: int, job_id: int) -> list[SearchedJob]:
    """Return the retries of a job, and at last the job, as far as they exist."""
    found = searching.some(db, tenant_id, [*whole_jobs.copies(db, job_id), job_id])
    return sorted(found, key=lambda job: job.id, reverse=True)


def erase(
    db: Database,
    keyring: Keyring,
    asked: Asked,
    *,
    budget_s: float = NO_LIMIT,
    on_progress: Callable[[int], None] = lambda n: None,
) -> Receipt:
    """Erase, or go on with an erasure of the same targets that has not ended; return the receipt as it is then.

    Raises RetryableError if another call works on the same erasure.
    """
    installation.require_key(db, keyring)
    receipt, job = _begun(db, keyring, asked)
    held = holds.covered(db, keyring, asked.tenant_id)
    erasing = Erasing(db, keyring, asked, job, receipt, held, time.monotonic() + budget_s, on_progress)
    if not (erasing.texts() if len(asked.targets) else erasing.whole()):
        return receipts.by_id(db, receipt.id)
    inputs.erase(db, receipts.by_id(db, receipt.id))
    statistics.forget(db, receipts.by_id(db, receipt.id))
    return receipts.finish(db, receipt)


def _begun(db: Database, keyring: Keyring, asked: Asked) -> tuple[Receipt, JobView | None]:
    try:
        job = asked.view(db)
    except NotFoundError:
        left = None if len(asked.targets) else receipts.unfinished(db, keyring, asked.tenant_id, ids.JOB.of(asked.job_id))
        if left is None:
            raise
        return left, None  # the job is gone, and what was left to do is not
    named = None if job is None else (job.id, job.label)
    return receipts.begin(db, keyring, asked.tenant_id, asked.targets, named), job


def count(db: Database, keyring: Keyring, asked: Asked) -> Counts:
    """Count what the erasure would meet; nothing is written."""
    installation.require_key(db, keyring)
    job = asked.view(db)
    if not len(asked.targets) and job is not None:
        family = family_of(db, asked.tenant_id, job.id)
        n, n_held = sum(one.total for one in family), sum(one.total for one in family if whole_jobs.is_held(db, one))
        return Counts(n, n_held, len(family), 0)
    held = holds.covered(db, keyring, asked.tenant_id)
    sums = [0, 0, 0, 0]
    for group in searching.groups(db, asked.tenant_id, job_id=None if job is None else job.id):
        for one in searching.search(db, keyring, group, asked.targets, held):
            n, n_held = len(one.seqs) + len(one.held), len(one.held)
            sums = [a + b for a, b in zip(sums, (n, n_held, bool(n), one.unread), strict=True)]
    return Counts(*sums)


def hold(db: Database, keyring: Keyring, asked: Asked, *, reason: str) -> list[Hold]:
    """Put a job, or all texts with an id or subject, under a hold; return the holds, one for each target."""
    holds.check_reason(reason)
    installation.require_key(db, keyring)
    tenant_id, job = asked.tenant_id, asked.view(db)
    if job is not None:
        if len(asked.targets):
            raise RejectedError("a hold is on a job or on ids and subjects, not on both: make two.")
        return [holds.create(db, keyring, tenant_id, Kind.JOB, value=None, job_id=job.id, reason=reason)]
    made = [
        holds.create(db, keyring, tenant_id, kind, value=value, job_id=None, reason=reason)
        for kind, value in asked.targets.kinds_and_values()
    ]
    return [extend(db, keyring, one) for one in made]


def extend(db: Database, keyring: Keyring, held: Hold) -> Hold:
    """Find the jobs that have a text of the hold by now, so that retention leaves them alone; safe to repeat."""
    if held.released_at is not None:
        raise RejectedError(f"{held.label} is released.")
    targets = holds.target_of(db, keyring, held)
    asked = Asked(held.tenant_id, targets)
    for group in searching.groups(db, held.tenant_id):
        jobs = [one.job.id for one in searching.search(db, keyring, group, asked.targets, Targets()) if one.seqs or one.held]
        if jobs:
            holds.keep(db, held, jobs)
    return holds.get(db, held.public_id, tenant_id=held.tenant_id)

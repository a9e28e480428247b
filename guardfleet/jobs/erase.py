"""Erase one person's data, or a job as a whole.

An erasure goes through the tenant's jobs by age. A job that is still being filled may bring such a text later, from an input that
was read before; it is searched again once it is filled, and until then the erasure is not finished. A retry is younger than the job
that it takes texts from, so it is searched after that one was erased, and can bring none back.

It may be killed anywhere, or stop because its time is over: the same request goes on where it was.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from guardfleet.domain import ids
from guardfleet.domain.targets import Targets
from guardfleet.errors import NotFoundError
from guardfleet.jobs import holding
from guardfleet.jobs.asked import Asked
from guardfleet.security.encryption import Keyring
from guardfleet.store import installation
from guardfleet.store.erasure import holds, inputs, receipts, statistics, texts, whole_jobs
from guardfleet.store.erasure import search as searching
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.erasure.search import Found, SearchedJob
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database

NO_LIMIT = float("inf")


@dataclass(slots=True)
class Counts:
    """What an erasure would meet."""

    texts: int = 0  # those on hold too
    refusals: int = 0  # refused lines with an id, those on hold too
    held: int = 0  # of both
    jobs: int = 0  # that have any
    files: int = 0  # uploaded, that would go
    unread: int = 0  # shards that cannot be decrypted

    def as_dict(self) -> dict[str, int]:
        """Return them as JSON, for every face."""
        return asdict(self)


@dataclass
class Erasing:
    """One call that goes on with an erasure, for `budget_s` at most."""

    db: Database
    keyring: Keyring
    asked: Asked
    job: JobView | None
    receipt: Receipt
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
        held, unread = 0, 0
        for found in self._search(group):
            texts.forget_refused(self.db, self.receipt.id, found.job, sorted(found.lines))
            if found.seqs:
                self.on_progress(texts.erase(self.db, self.keyring, self.receipt.id, found.job, sorted(found.seqs)))
            if not found.job.is_ingesting:
                held, unread = held + found.n_held, unread + found.unread
        return held, unread

    def _search(self, group: Sequence[SearchedJob]) -> list[Found]:
        """Return what is in the jobs, compared with the holds there are now; once more if one was made meanwhile."""
        while True:
            targets, jobs = on_hold = self._on_hold(group)
            group = [replace(job, is_held=job.id in jobs) for job in group]
            found = searching.search(self.db, self.keyring, group, self.asked.targets, targets)
            if not found or self._on_hold(group) == on_hold:
                return found

    def _on_hold(self, group: Sequence[SearchedJob]) -> tuple[Targets, set[int]]:
        now = searching.some(self.db, self.asked.tenant_id, [job.id for job in group])
        return holds.covered(self.db, self.keyring, self.asked.tenant_id), {job.id for job in now if job.is_held}

    def whole(self) -> bool:
        """Erase the job and its retries as a whole, unless one is on hold; return whether nothing is left to do.

        Until the job is gone somebody may begin another retry, which takes texts along: so they are looked for once more.
        """
        job_id = self.receipt.job_id or 0
        family = family_of(self.db, self.receipt.tenant_id, job_id)
        if self._is_held_back(family):
            return True
        while family:
            for one in family:
                whole_jobs.stop(self.db, one)
                if self._is_held_back([one]):  # again: until it was stopped, texts came in
                    return True
                for is_free in whole_jobs.erase_verdicts(self.db, self.receipt.id, one):
                    if is_free and self.is_over:
                        return False
                if not whole_jobs.erase(self.db, self.receipt.id, self.receipt.tenant_id, one):
                    receipts.hold_back(self.db, self.receipt.id, max(one.total, 1))
                    return True
                self.on_progress(one.total)
            family = family_of(self.db, self.receipt.tenant_id, job_id)
        return True

    def _is_held_back(self, family: Sequence[SearchedJob]) -> bool:
        """Return whether a hold covers one of the jobs, or a text of one, and record it."""
        on_hold = holding.guard(self.db, self.keyring, self.receipt.tenant_id, [one.id for one in family])
        if on_hold:
            receipts.hold_back(self.db, self.receipt.id, sum(max(one.total, 1) for one in on_hold))
        return bool(on_hold)


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
    erasing = Erasing(db, keyring, asked, job, receipt, time.monotonic() + budget_s, on_progress)
    if not (erasing.texts() if len(asked.targets) else erasing.whole()):
        return receipts.by_id(db, receipt.id)
    receipt = receipts.by_id(db, receipt.id)
    inputs.erase(db, receipt, kept=holding.guard_file(db, keyring, receipt.tenant_id, *receipt.input_files))
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


def count(db: Database, keyring: Keyring, *pieces: Asked) -> Counts:
    """Count what the erasure of all pieces would meet, which are of one tenant and of one job or all; nothing is written."""
    installation.require_key(db, keyring)
    tenant_id, job = pieces[0].tenant_id, pieces[0].view(db)
    if not len(pieces[0].targets) and job is not None:
        return _count_whole(db, keyring, tenant_id, family_of(db, tenant_id, job.id))
    on_hold, sums, files = holds.covered(db, keyring, tenant_id), Counts(), set()
    for group in searching.groups(db, tenant_id, job_id=None if job is None else job.id):
        found = [searching.search(db, keyring, group, piece.targets, on_hold) for piece in pieces]
        for one in searching.joined(found):
            sums.texts += len(one.seqs | one.held)
            sums.refusals += len(one.lines | one.held_lines)
            sums.held += one.n_held
            sums.jobs += one.is_met
            sums.unread += one.unread
            if one.seqs or one.lines:
                files.add(one.job.input_file_id)
    sums.files = _count_files(db, keyring, tenant_id, files)
    return sums


def _count_whole(db: Database, keyring: Keyring, tenant_id: int, family: Sequence[SearchedJob]) -> Counts:
    kept = holding.covered(db, keyring, tenant_id, family)
    files = set() if kept else {one.input_file_id for one in family}
    return Counts(
        texts=sum(one.total for one in family),
        refusals=whole_jobs.refusals(db, [one.id for one in family]),
        held=sum(max(one.total, 1) for one in kept),
        jobs=len(family),
        files=_count_files(db, keyring, tenant_id, files),
    )


def _count_files(db: Database, keyring: Keyring, tenant_id: int, files: set[uuid.UUID | None]) -> int:
    there = [one for one in files if one is not None]
    kept = holding.covered(db, keyring, tenant_id, searching.some(db, tenant_id, searching.of_files(db, tenant_id, there)))
    return inputs.count(db, tenant_id, set(there) - {job.input_file_id for job in kept})

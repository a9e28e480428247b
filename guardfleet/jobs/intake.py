"""Take texts in as a job: rows are gathered into encrypted shards, shards into commits, with constant memory.

Shards are committed as they fill, and published from then on (those of an `all_or_nothing` job once the intake is closed). A commit
ends between two shards, so it records exactly how far the input was read: a killed intake can be resumed from there.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from guardfleet.domain import ids
from guardfleet.errors import LineError, RejectedError, RetryableError
from guardfleet.jobs.submit import open_job
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import SeenIds, content_bytes
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.jobs import creation, intake, intake_recovery, views
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.intake import EncryptedShard
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database

COMMIT_SHARDS = 16  # shards in one COPY transaction
COMMIT_BYTES = 32 << 20
COMMIT_REJECTIONS = 10_000
COMMIT_S = 2.0  # commit early if the input is slow, so that work on it starts
LOOK_AGAIN_S = 0.2
FIRST_REJECTED = 5  # enough to show what is wrong


class Intake:
    """One job while its texts are taken in. A context manager.

    Leaving it by an exception abandons the job. A job with a fingerprint that was interrupted, or lost its database, can be resumed
    instead: the next intake of the same input takes it over.
    """

    def __init__(
        self,
        db: Database,
        keyring: Keyring,
        settings: Settings,
        new: NewJob,
        *,
        opened: intake.OpenJob | None = None,
        addresses: Sequence[str] | None = None,
        on_progress: Callable[[int], None] = lambda n: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db, self._keyring, self._settings = db, keyring, settings
        self._strict, self._on_progress, self._clock = new.options.all_or_nothing, on_progress, clock
        self._has_callback = new.options.callback_url is not None
        self._can_go_on = new.fingerprint is not None or new.input_file_id is not None
        self.job = opened or self._open(new, addresses)  # one that is open already is resumed where it stands
        self.resumed_after = self.job.line  # input lines that an earlier intake committed
        self.first_rejected: list[LineError] = []
        self._taken, self._shard_no, self._line = self.job.texts, self.job.shards, self.job.line
        self._seen = SeenIds()
        self._rows: list[PayloadRow] = []
        self._of_seqs: list[int] = []  # of a retry: the rows' places in the first job, whose lines are numbered from 1
        self._row_bytes = 0
        self._shards: list[EncryptedShard] = []
        self._shard_bytes = 0
        self._rejections: list[LineError] = []
        self._written_at = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.give_up(error)

    def give_up(self, error: BaseException) -> None:
        """Release the job after an error: to the next intake of the same input if it can be resumed, else for good."""
        with suppress(RetryableError):  # if PostgreSQL is down, the lease runs out and the dispatcher abandons the job in the end
            if self._can_go_on and isinstance(error, KeyboardInterrupt | RetryableError):
                intake_recovery.let_go(self._db, self.job)
            else:
                intake.abandon(self._db, self.job.id, str(error) or type(error).__name__, token=self.job.token)

    def add_all(self, numbered: Iterable[tuple[int, PayloadRow | LineError]]) -> None:
        """Take rows in, in order. With `all_or_nothing`, raise RejectedError for the first unusable one."""
        for line, row in numbered:
            self.add(line, row)

    def add(self, line: int, row: PayloadRow | LineError) -> None:
        """Take one row in, or record its refusal. Of a line that an earlier intake committed, only the id is checked."""
        if not isinstance(row, LineError):
            try:
                self._seen.check(line, row.id)
            except LineError as error:
                error.row_id, error.last_line = row.id, line + row.lines - 1
                row = error.kept()
            else:
                if self._strict and row.notes:
                    row = LineError(line, "invalid_metadata", row.notes[0], row.id)
        if line > self.resumed_after:
            self._line = line
            if isinstance(row, LineError):
                self._refuse(row)
            else:
                self._rows.append(row)
                if self.job.retry_of is not None:
                    self._of_seqs.append(line - 1)
                self._row_bytes += content_bytes(row.content)
                if len(self._rows) >= self._settings.intake.shard_texts or self._row_bytes >= self._settings.tuning.shard_bytes:
                    self._close_shard()
        self.keep()

    def keep(self) -> None:
        """Commit what there is, and so renew the lease, if the last commit is a while ago: rows may come slowly."""
        if self._clock() - self._written_at > COMMIT_S:
            self._close_shard()
            self._flush(alive=True)

    def seal(self, *, also: Callable[[Any], None] | None = None) -> JobView:
        """Commit the rest and close the intake. `also` runs with the connection of the same transaction."""
        self._close_shard()
        self._flush()
        intake.seal(self._db, self.job, also=also)
        return views.get(self._db, self.job.public_id, tenant_id=self.job.tenant_id)

    @property
    def callback_secret(self) -> str | None:
        """The secret that signs the job's callback; for a resumed job, the one that its first intake made."""
        if not self._has_callback:
            return None
        return self.job.callback_secret or creation.stored_callback_secret(self._db, self._keyring, self.job)

    def _open(self, new: NewJob, addresses: Sequence[str] | None) -> intake.OpenJob:
        if new.fingerprint is not None and (found := self._go_on(new.fingerprint, new.tenant_id)):
            return found
        return open_job(self._db, self._keyring, self._settings, new, addresses=addresses)

    def _go_on(self, fingerprint: bytes, tenant_id: int) -> intake.OpenJob | None:
        """Resume the unfinished intake of the same input. Wait for one that was killed a moment ago: its lease must run out."""
        first = intake_recovery.intake_of(self._db, fingerprint, tenant_id=tenant_id)
        while (now := intake_recovery.intake_of(self._db, fingerprint, tenant_id=tenant_id)) and first:
            if found := intake_recovery.take_over(self._db, fingerprint, tenant_id=tenant_id):
                return found
            if now != first:
                raise RejectedError(f"the same input is already being submitted, as {ids.JOB.of(now[0])}.")
            time.sleep(LOOK_AGAIN_S)
        return None

    def _refuse(self, error: LineError) -> None:
        if self._strict:
            raise RejectedError(str(error)) from error
        self._rejections.append(error)
        if len(self.first_rejected) < FIRST_REJECTED:
            self.first_rejected.append(error)
        if len(self._rejections) >= COMMIT_REJECTIONS:
            self._close_shard()
            self._flush()

    def _close_shard(self) -> None:
        if not self._rows:
            return
        blob = self._keyring.encrypt_rows(self.job.data_key, self._rows, job_id=self.job.id, shard_no=self._shard_no)
        n, size = len(self._rows), self._row_bytes
        self._shards.append(EncryptedShard(self._shard_no, self._taken, n, blob, size, self._of_seqs))
        self._shard_bytes += len(blob)
        self._taken += len(self._rows)
        self._shard_no += 1
        self._rows, self._of_seqs, self._row_bytes = [], [], 0
        if len(self._shards) >= COMMIT_SHARDS or self._shard_bytes >= COMMIT_BYTES:
            self._flush()

    def _flush(self, *, alive: bool = False) -> None:
        """Commit everything up to exactly the last line seen: no row is left outside a shard."""
        if self._shards or self._rejections or alive:
            intake.write_piece(self._db, self.job, self._shards, self._rejections, line=self._line)
            self._shards, self._rejections, self._shard_bytes = [], [], 0
            self._written_at = self._clock()
            self._on_progress(self._taken)

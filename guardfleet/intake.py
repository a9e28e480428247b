"""Texts becoming a job, whoever brings them: rows gathered into sealed shards, shards into pieces, memory flat.

The job stays INGESTING until seal(); whatever ends before that leaves no job that counts as whole.
"""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows import SeenIds, content_bytes
from guardfleet.sealing import Keyring, PayloadRow
from guardfleet.settings import Settings
from guardfleet.signing import is_secret, new_secret
from guardfleet.store import ingest, jobs
from guardfleet.store.database import Database
from guardfleet.store.ingest import SealedShard
from guardfleet.store.jobs import JobView, NewJob

PIECE_SHARDS = 16  # shards in one COPY transaction
PIECE_BYTES = 32 << 20
PIECE_REJECTIONS = 10_000
FIRST_REJECTED = 5  # enough to see what is wrong


class Intake:
    """One job on its way in. A context manager: leaving it by an exception gives the job up."""

    def __init__(
        self,
        db: Database,
        keyring: Keyring,
        settings: Settings,
        new: NewJob,
        *,
        strict: bool = False,
        on_progress: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._db, self._keyring, self._settings = db, keyring, settings
        self._strict, self._on_progress = strict, on_progress
        self.job = jobs.create(db, keyring, new)
        self.taken = 0
        self.first_rejected: list[LineError] = []
        self._seen = SeenIds()
        self._rows: list[PayloadRow] = []
        self._row_bytes = 0
        self._shards: list[SealedShard] = []
        self._shard_bytes = 0
        self._shard_no = 0
        self._rejections: list[LineError] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            jobs.abandon(self._db, self.job.id, str(error) or type(error).__name__)

    def add_all(self, numbered: Iterable[tuple[int, PayloadRow | LineError]]) -> None:
        """Take rows in, in order; with `strict` the first unusable one raises RejectedError."""
        for line, row in numbered:
            self.add(line, row)

    def add(self, line: int, row: PayloadRow | LineError) -> None:
        """Take one row in, or note its refusal."""
        if isinstance(row, LineError):
            self._refuse(row)
            return
        try:
            self._seen.check(line, row.id)
        except LineError as error:
            self._refuse(error)
            return
        self._rows.append(row)
        self._row_bytes += content_bytes(row.content)
        if len(self._rows) >= self._settings.shard_texts or self._row_bytes >= self._settings.shard_bytes:
            self._close_shard()

    def seal(self) -> JobView:
        """Commit what is left and release the job to the workers."""
        self._close_shard()
        self._flush()
        jobs.seal(self._db, self.job.id)
        return jobs.get(self._db, self.job.public_id, tenant_id=self.job.tenant_id)

    def _refuse(self, error: LineError) -> None:
        if self._strict:
            raise RejectedError(str(error)) from error
        self._rejections.append(error)
        if len(self.first_rejected) < FIRST_REJECTED:
            self.first_rejected.append(error)
        if len(self._rejections) >= PIECE_REJECTIONS:
            self._flush()

    def _close_shard(self) -> None:
        if not self._rows:
            return
        blob = self._keyring.seal_rows(self.job.data_key, self._rows, job_id=self.job.id, shard_no=self._shard_no)
        self._shards.append(SealedShard(self._shard_no, self.taken, len(self._rows), blob))
        self._shard_bytes += len(blob)
        self.taken += len(self._rows)
        self._shard_no += 1
        self._rows, self._row_bytes = [], 0
        if len(self._shards) >= PIECE_SHARDS or self._shard_bytes >= PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._shards or self._rejections:
            ingest.write_piece(self._db, self.job, self._shards, self._rejections)
            self._shards, self._rejections, self._shard_bytes = [], [], 0
            self._on_progress(self.taken)


def callback_secret(url: str | None, secret: str | None) -> str | None:
    """The secret that signs a job's callback: the one given, else a fresh one; None without a URL. Raises RejectedError."""
    if url is None:
        return None
    if not url.startswith(("https://", "http://")):
        raise RejectedError("callback_url is to begin with https:// or http://.")
    if secret is not None and not is_secret(secret):
        raise RejectedError("callback_secret is to be whsec_ and 24 to 64 bytes in base64.")
    return secret or new_secret()

"""Ingest uploaded files of batches in the background, so that the request is answered at once.

If a process dies meanwhile, any other API process resumes after the last committed line: lease and fencing token are those of
every intake.

When a file expires, the dispatcher deletes its key, so that this does not depend on a running API. The bytes are removed here,
since only API processes reach the file storage; a fleet that never had an API has no files.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from queue import Empty, SimpleQueue

from api.services import file_reading
from api.services.file_storage import Contents
from guardfleet.domain.options import JobOptions
from guardfleet.errors import GuardfleetError, LineError, RetryableError
from guardfleet.jobs.intake import Intake
from guardfleet.rows.lines import numbered_rows
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import files
from guardfleet.store.jobs import intake_recovery, views
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.intake import OpenJob
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.logs import get_logger

THREADS = 2
LOOK_S = 5.0  # between polls for intakes that another process left behind
REMOVE_S = 60.0  # between polls for contents of deleted files


class FileIntakes:
    """The ingestion threads of one API process."""

    def __init__(self, db: Database, keyring: Keyring, settings: Settings, contents: Contents) -> None:
        self._db, self._keyring, self._settings, self._contents = db, keyring, settings, contents
        self._brought: SimpleQueue[tuple[OpenJob, uuid.UUID] | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._live, name=f"file-intake-{i}", daemon=True) for i in range(THREADS)]
        self._removed_at = time.monotonic()

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Stop at once and leave unfinished intakes to others."""
        self._stopped.set()
        for _ in self._threads:
            self._brought.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def bring(self, job: OpenJob, file_id: uuid.UUID) -> None:
        """Hand over a new job and its file. If this process is too busy, the job's lease runs out and another takes it."""
        self._brought.put((job, file_id))

    def _live(self) -> None:
        while not self._stopped.is_set():
            try:
                found = self._next()
                if found is not None:
                    self._take(*found)
                self._remove_left()
            except RetryableError as error:
                get_logger().warning("file_intake_paused", reason=str(error))
                self._stopped.wait(1.0)
            except Exception as error:  # noqa: BLE001 - one bad file must not end the thread that ingests all others
                get_logger().error("file_intake_failed", reason=type(error).__name__)
                self._stopped.wait(1.0)

    def _next(self) -> tuple[OpenJob, uuid.UUID] | None:
        try:
            return self._brought.get(timeout=LOOK_S)
        except Empty:
            return intake_recovery.take_over_file(self._db)

    def _take(self, opened: OpenJob, file_id: uuid.UUID) -> None:
        job = views.get_by_id(self._db, opened.id)
        new = NewJob(JobOptions(all_or_nothing=job.strict), opened.tenant_id, input_file_id=file_id)
        try:
            with Intake(self._db, self._keyring, self._settings, new, opened=opened) as intake:
                intake.add_all(self._rows(file_id, job))
                intake.seal()
        except RetryableError:
            raise
        except GuardfleetError as error:
            get_logger().warning("file_intake_ended", job=job.label, reason=type(error).__name__)

    def _rows(self, file_id: uuid.UUID, job: JobView) -> Iterator[tuple[int, PayloadRow | LineError]]:
        file = files.get(self._db, file_id, tenant_id=job.tenant_id)
        chunks = self._until_stopped(self._contents.read(file_id, file.data_key, size=file.size))
        most = self._settings.intake.max_text_bytes
        if job.reading is not None:
            return file_reading.rows(file.filename, chunks, job.reading, max_text_bytes=most)
        return numbered_rows(chunks, max_text_bytes=most, url=job.endpoint)

    def _until_stopped(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._stopped.is_set():
                raise RetryableError("the process is stopping.")
            yield chunk

    def _remove_left(self) -> None:
        if time.monotonic() - self._removed_at < REMOVE_S:
            return
        self._removed_at = time.monotonic()
        self.remove_left()

    def remove_left(self) -> None:
        """Remove the contents of deleted files."""
        for file_id in files.left(self._db):
            self._contents.delete(file_id)
            files.removed(self._db, file_id)

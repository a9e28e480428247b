"""Put texts under a legal hold, and find what the holds by id and subject cover, before it is erased as part of something larger.

A text that is erased by itself is compared with all holds where it is found. A job or a file goes as a whole, and nobody looks into
it on the way: so it is searched first.
"""

import uuid
from collections.abc import Sequence

from guardfleet.domain.targets import Kind, Targets
from guardfleet.errors import RejectedError
from guardfleet.jobs.asked import Asked
from guardfleet.security.encryption import Keyring
from guardfleet.store import installation
from guardfleet.store.erasure import holds
from guardfleet.store.erasure import search as searching
from guardfleet.store.erasure.holds import Hold
from guardfleet.store.erasure.search import SearchedJob
from guardfleet.store.postgres.database import Database


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
    for group in searching.groups(db, held.tenant_id):
        _extend_to(db, keyring, held, group)
    return holds.get(db, held.public_id, tenant_id=held.tenant_id)


def _extend_to(db: Database, keyring: Keyring, held: Hold, group: Sequence[SearchedJob]) -> None:
    found = searching.search(db, keyring, group, holds.target_of(db, keyring, held), Targets())
    jobs = [one.job.id for one in found if one.is_met]
    if jobs:
        holds.keep(db, held, jobs)


def covered(db: Database, keyring: Keyring, tenant_id: int, jobs: Sequence[SearchedJob]) -> list[SearchedJob]:
    """Return those of these jobs that must not go: under a hold, or with a text or a refused line that one by id or subject covers.

    Or with a shard that cannot be decrypted, while there is such a hold: nobody knows what is in it. Nothing is written.
    """
    pieces = holds.covered(db, keyring, tenant_id).pieces() if jobs else ()
    met = {one.job.id for piece in pieces for one in searching.search(db, keyring, jobs, piece, Targets())}
    return [job for job in jobs if job.id in met or job.is_kept]


def guard(db: Database, keyring: Keyring, tenant_id: int, job_ids: Sequence[int]) -> list[SearchedJob]:
    """Extend the holds to those of these jobs that have a text of theirs; return which jobs must not go, as covered() does."""
    found = covered(db, keyring, tenant_id, searching.some(db, tenant_id, job_ids))
    if found:
        for held in holds.in_force(db, tenant_id):
            _extend_to(db, keyring, held, found)
    return found


def guard_file(db: Database, keyring: Keyring, tenant_id: int, *files: uuid.UUID) -> set[uuid.UUID]:
    """Do the same for the jobs that were made of these uploaded files; return which files must not go."""
    found = guard(db, keyring, tenant_id, searching.of_files(db, tenant_id, files))
    return {job.input_file_id for job in found if job.input_file_id is not None}

"""What an erasure or a legal hold is about: texts of a tenant, named by targets, or a job as a whole."""

import uuid
from dataclasses import dataclass, field

from guardfleet.domain import ids
from guardfleet.domain.targets import Targets
from guardfleet.errors import RejectedError
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database


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
    def label(self) -> str:
        """The public id of the job as a job's; empty without one."""
        return "" if self.job is None else ids.JOB.of(self.job_id)

    @property
    def job_id(self) -> uuid.UUID:
        """The public id of the job. Raises NotFoundError for what cannot be one."""
        return ids.JOB.parse((self.job or "").removeprefix(ids.MODERATION.prefix))

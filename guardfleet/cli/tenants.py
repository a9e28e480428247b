"""Commands about one tenant's rows: its database, its number, and its jobs."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from guardfleet.domain import ids
from guardfleet.embedded.stack import database_of
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database


@contextmanager
def tenant_of(settings: Settings, name: str) -> Iterator[tuple[Database, int, Settings]]:
    """Yield the database, the tenant's number, and the complete settings. Raises RejectedError for an unknown tenant."""
    with database_of(settings) as complete, closing(Database(complete.required("database_url"), pool_size=3)) as db:
        yield db, keys.tenant_id(db, name), complete


def job_of(db: Database, tenant_id: int, label: str) -> JobView:
    """Return the tenant's job. Raises NotFoundError."""
    return views.get(db, ids.JOB.parse(label), tenant_id=tenant_id)

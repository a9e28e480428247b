"""Which stored verdicts a policy is tried on or applied to: those of one batch, or of all batches since a time."""

import datetime as dt

from api.http.problems import ProblemError
from guardfleet.domain import ids
from guardfleet.store.jobs import views
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database


def scope_of(db: Database, tenant_id: int, batch_id: str | None, since: float | None) -> Scope:
    """Return the scope. Raises ProblemError unless exactly one of both is given, NotFoundError for another tenant's batch too."""
    if (batch_id is None) == (since is None):
        raise ProblemError(400, "invalid_scope", "give `batch_id`, or `since` (a Unix time): one of them.", param="since")
    if batch_id is not None:
        return Scope(tenant_id, views.get(db, ids.JOB.parse(batch_id), tenant_id=tenant_id).id)
    return Scope(tenant_id, since=dt.datetime.fromtimestamp(since or 0, dt.UTC))

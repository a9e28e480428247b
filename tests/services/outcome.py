"""Checks of a finished job: rows, counters and the completion log must agree."""

from guardfleet.client.direct import DirectClient
from guardfleet.domain.verdict import GUARD
from guardfleet.store import verdicts
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from tests.services.fleet import PATIENCE_S, until


def finished(producer: DirectClient, job: JobView, timeout_s: float = PATIENCE_S) -> JobView:
    """The job once it has ended."""

    def look() -> JobView | None:
        view = views.get(producer.db, job.public_id)
        return view if view.state.is_final else None

    found = until(look, timeout_s=timeout_s, what="the end of the job")
    assert found is not None
    return found


def progressed(producer: DirectClient, job: JobView, n: int) -> None:
    """Wait until at least `n` texts have their verdict."""
    until(lambda: views.get(producer.db, job.public_id).done >= n, what=f"{n} verdicts")


def assert_exactly_once(producer: DirectClient, job: JobView) -> None:
    """Assert one verdict per text, counters equal to rows, and at most one completion event."""
    rows = list(verdicts.export(producer.db, job))
    assert [row["seq"] for row in rows] == list(range(job.total))
    assert job.done == job.total == len(rows)
    assert job.safe + job.controversial + job.unsafe + job.error + job.unrated == job.total
    with producer.db.begin() as connection:
        events = connection.scalar(f"select count(*) from outbox where job_id = {job.id}")
        detected = connection.execute(
            f"select place, count(*) as n, count(distinct seq) as texts from detection where job_id = {job.id} group by 1"
        )
        of_detectors = {place: (n, texts) for place, n, texts in detected}
        logged = connection.scalar(f"select sum(n) from shard_done where job_id = {job.id}")
    assert events <= 1
    assert (logged or 0) == job.total
    places = [place for place, name in enumerate(job.detectors or ()) if name != GUARD]
    assert of_detectors == dict.fromkeys(places, (job.total, job.total))
    assert all(sum(ends.values()) == job.total for ends in (job.detected or {}).values())

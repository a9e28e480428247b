"""Why a job makes no progress, in a sentence that says what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from guardfleet.domain.detection import route_of
from guardfleet.domain.lanes import Queues
from guardfleet.domain.states import JobState
from guardfleet.settings import Settings
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres import leader
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import health
from guardfleet.store.shards.health import Stall

STALLED = "no worker has taken work from queue {queue} for {minutes} minutes: is one running for it?"
MOVING_S = 10.0  # since its last verdicts; a job that progresses needs no diagnosis


@dataclass
class Fleet:
    """What is asked of the fleet once, however many jobs stand still."""

    db: Database
    settings: Settings

    @cached_property
    def is_led(self) -> bool:
        """Whether a dispatcher runs."""
        return leader.is_led(self.db)

    @cached_property
    def stalls(self) -> Sequence[Stall]:
        """The queues from which nobody takes work."""
        return health.stalls(self.db, after_s=self.settings.tuning.stall_s)


def explain(db: Database, job: JobView, settings: Settings) -> str | None:
    """Return why nobody works on the job; None if it progresses or has ended."""
    return _explain(Fleet(db, settings), job)


def explain_all(db: Database, jobs: Iterable[JobView], settings: Settings) -> dict[str, str]:
    """Return the same of each job that stands still, by its public id."""
    fleet = Fleet(db, settings)
    return {job.label: said for job in jobs if (said := _explain(fleet, job))}


def _explain(fleet: Fleet, job: JobView) -> str | None:
    if job.state.is_final:
        return None
    if job.is_paused:
        return f"paused since {job.paused_at:%Y-%m-%d %H:%M} UTC: run `guardfleet resume {job.label}`."
    if job.idle_s is not None and job.idle_s < MOVING_S:
        return None
    return _found(fleet, job)


def _found(fleet: Fleet, job: JobView) -> str | None:
    """Return what the fleet lacks, the most likely cause first."""
    db, settings = fleet.db, fleet.settings
    if job.state is not JobState.INGESTING and not fleet.is_led:
        return "no dispatcher is running: start `guardfleet dispatcher`."
    asked = [*(job.detectors or ()), *job.plan.second_entries]
    routes = {job.first_model, job.second_model, *map(route_of, asked)}
    for stall in fleet.stalls:
        if stall.route.lane == job.lane and stall.route.model in routes:
            return in_words(stall, settings.namespace)
    if silence := health.silence(db, job.id, lease_s=settings.tuning.lease_s):
        what = "a shard is" if silence.shards == 1 else f"{silence.shards:,} shards are"
        return f"{what} held by a worker that has not been heard of lately: others can take over in {silence.back_s:.0f} s."
    return None


def in_words(stall: Stall, namespace: str) -> str:
    """Describe a stalled queue in a sentence."""
    return STALLED.format(**named(stall, namespace))


def named(stall: Stall, namespace: str) -> dict[str, str]:
    """Return what fills STALLED in."""
    queue = Queues.of(namespace).of_model(stall.route.lane, stall.route.model)
    return {"queue": queue, "minutes": f"{stall.idle_s / 60:,.0f}"}

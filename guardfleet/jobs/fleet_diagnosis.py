"""What is known of the whole fleet, in sentences that say what to do: from its rows, and by asking the broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from guardfleet.broker import celery_app
from guardfleet.errors import GuardfleetError
from guardfleet.jobs.diagnosis import STALLED, named
from guardfleet.settings import Settings
from guardfleet.store import fleet
from guardfleet.store.events import deliveries
from guardfleet.store.postgres import leader
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import backlog, health

LOST_S = 600.0  # for so long it is said that a worker was lost
LATE_S = 60.0  # for which a webhook delivery may be due
LED = "A dispatcher leads: it publishes work, and repairs what was lost."
NOT_LED = "No dispatcher leads: start `guardfleet dispatcher`. Nothing is published or repaired meanwhile."
LOST = "{n} workers were lost in the last {minutes} minutes: they fell silent, and did not stop in order. Read their logs."


@dataclass(frozen=True, slots=True)
class Said:
    """One thing about the fleet: a sentence and what fills it in, apart from each other, so that it can be said in any language."""

    subject: str
    is_well: bool
    sentence: str
    values: Mapping[str, str] = field(default_factory=dict)


def of_fleet(db: Database, settings: Settings) -> list[Said]:
    """Return what is known of all processes but this one: from their rows, and by asking the broker."""
    is_led = leader.is_led(db)
    found = [Said("dispatcher", is_led, LED if is_led else NOT_LED)]
    found.append(_of_broker(settings))
    return [*found, *_of_workers(db), *_of_work(db, settings), _of_deliveries(db)]


def _of_broker(settings: Settings) -> Said:
    """Ask the broker; takes some seconds if it is silent."""
    if settings.broker_url is None:
        return Said("broker", False, "This process was not told the broker's address: set GUARDFLEET_BROKER_URL.")
    try:
        with celery_app.reached(celery_app.make_app(settings, "guardfleet-api"), settings, max_retries=1):
            return Said("broker", True, "The broker answers.")
    except GuardfleetError:
        sentence = "The broker does not answer. The work is in PostgreSQL, and is published again when the broker is back."
        return Said("broker", False, sentence)


def _of_workers(db: Database) -> list[Said]:
    known = fleet.known(db, within_s=LOST_S)
    there = [one for one in known if one.is_there]
    n_lost = sum(one.told == "lost" for one in known)
    found = [Said("workers", bool(there), "{n} workers are there.", {"n": f"{len(there):,}"})]
    if n_lost:
        found.append(Said("workers", False, LOST, {"n": f"{n_lost:,}", "minutes": f"{LOST_S / 60:.0f}"}))
    sentence = "{worker} does not serve what it should: {reason}."
    return found + [
        Said("workers", False, sentence, {"worker": one.name, "reason": one.reason.rstrip(".")}) for one in there if one.reason
    ]


def _of_work(db: Database, settings: Settings) -> list[Said]:
    queues = backlog.queues(db)
    n = sum(one.texts for one in queues)
    oldest_s = max((one.oldest_s for one in queues), default=0.0)
    values = {"n": f"{n:,}", "minutes": f"{oldest_s / 60:,.0f}"}
    work = "{n} texts wait or are in work; the oldest job was submitted {minutes} minutes ago." if n else "No text waits."
    stalls = health.stalls(db, after_s=settings.tuning.stall_s)
    return [
        Said("work", True, work, values if n else {}),
        *(Said("work", False, STALLED, named(stall, settings.namespace)) for stall in stalls),
    ]


def _of_deliveries(db: Database) -> Said:
    n, oldest_s = deliveries.waiting(db)
    if oldest_s <= LATE_S:
        return Said("deliveries", True, "{n} webhook deliveries are due.", {"n": f"{n:,}"})
    sentence = "{n} webhook deliveries are due, one for {minutes} minutes: is `guardfleet worker --webhooks` running?"
    return Said("deliveries", False, sentence, {"n": f"{n:,}", "minutes": f"{oldest_s / 60:,.0f}"})

"""A process's health: a word, reasons, and an outage said once."""

import json

import pytest
from structlog.testing import capture_logs

from guardfleet.errors import AwayError
from guardfleet.telemetry import health, memory, probes
from guardfleet.telemetry.health import Health, Part, Status


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def well(clock: Clock) -> Health:
    """A process that has started and lacks nothing."""
    made = Health(clock=clock)
    made.ready()
    made.look()
    return made


def test_a_process_that_starts_is_live_and_not_ready_and_says_what_it_does(clock: Clock) -> None:
    starting = Health(clock=clock)
    starting.phase("loading the model")
    clock.now += 12
    starting.look()
    assert probes.livez(starting)[0]
    assert probes.readyz(starting) == (False, "text/plain", "loading the model for 12 s\n")
    is_well, _, body = probes.healthz(starting)
    assert (is_well, json.loads(body)) == (True, {"status": "degraded", "reasons": ["loading the model for 12 s"]})
    starting.ready()
    assert probes.readyz(starting) == (True, "text/plain", "ok\n")


def test_what_was_never_looked_at_is_not_well(well: Health) -> None:
    well.add(Part("database", lambda: None))
    assert well.report().status is Status.UNHEALTHY
    assert well.report().not_ready == "database: not looked at yet"


@pytest.mark.parametrize(("is_vital", "status"), [(True, Status.UNHEALTHY), (False, Status.DEGRADED)])
def test_a_part_that_is_wrong_counts_by_whether_the_process_can_work_without_it(
    well: Health, is_vital: bool, status: Status
) -> None:
    well.add(Part("x", lambda: "it is gone", is_vital=is_vital))
    well.look()
    assert well.report().status is status
    assert (well.report().not_ready is not None) is is_vital
    assert well.report().in_public().reasons == ("x: cannot be used",)


def test_a_look_that_raises_is_a_part_that_is_wrong_and_costs_no_other_its_look(well: Health) -> None:
    def raises() -> str | None:
        raise ValueError("canary")

    well.add(Part("bad", raises))
    well.add(Part("away", lambda: "gone"))
    well.look()
    assert well.report().reasons == ("bad: ValueError", "away: gone")


def test_a_thread_that_no_longer_looks_is_noticed(well: Health, clock: Clock) -> None:
    clock.now += health.BLIND_S + 1
    assert well.report().status is Status.UNHEALTHY


def test_an_outage_is_a_line_at_its_beginning_one_a_minute_and_one_at_its_end(well: Health, clock: Clock) -> None:
    wrong = True

    def look() -> str | None:
        if wrong:
            raise AwayError("broker", "it does not answer")
        return None

    well.add(Part("broker", look, is_vital=False, address="host:5672"))
    with capture_logs() as lines:
        for _ in range(30):
            well.look()
            clock.now += 5
        wrong = False
        well.look()
        well.look()
    said = [(line["event"], line.get("seconds")) for line in lines if line.get("dependency") == "broker"]
    assert said == [("outage_began", None), ("outage_goes_on", 60), ("outage_goes_on", 120), ("outage_ended", 150)]
    assert {line["address"] for line in lines if "dependency" in line} == {"host:5672"}


def test_memory_is_nearly_full_from_nine_tenths_on() -> None:
    assert memory.in_words(9, 10, "memory") is None
    assert memory.in_words(91 << 30, 100 << 30, "memory") == "91% of 100.0 GiB of memory are in use"
    assert memory.in_words(5, 0, "memory") is None, "unknown"
    used, total = memory.in_use()
    assert 0 < used < total

"""The console's pages of the fleet: workers, queues, models, health; whose they are, and who may change what."""

import re

import pytest

from guardfleet.domain.states import DeploymentState, WorkerState
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, fleet
from guardfleet.store.deployments import comparisons, deployments, seats
from guardfleet.store.deployments.comparisons import Batch, Cell, Place
from guardfleet.store.deployments.row import Asked, Deployment
from guardfleet.store.deployments.seats import Seat
from guardfleet.store.fleet import Sighting
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.poison import change
from tests.services.stored import submit
from tests.services.visiting import HOSTILE, csrf_in, key_of, send, visitor

pytestmark = [with_broker("redis")]

PATHS = ("", "/models", "/health", "/deliveries", "/keys", "/sessions", "/audit")


def worker(db: Database, name: str, state: WorkerState = WorkerState.READY) -> None:
    fleet.report(db, Sighting(name, state, "m", "0123456789abcdef", 1234.0, 0.5, "cuda:0", 2 << 30, 8 << 30))
    seats.report(db, Seat(name, "guard", None, None, follows=True, reason=None))


def deployed(db: Database, keyring: Keyring, state: DeploymentState, **more: object) -> Deployment:
    asked = Asked(detector="guard", model="m", state=state, **{"share": 0.1, "canary_texts": 60, "min_agreement": 0.9, **more})
    return deployments.begin(db, keyring, asked)


@pytest.mark.parametrize(
    ("role", "open_pages"),
    [
        ("reviewer", ()),
        ("viewer", ("", "/models", "/health", "/deliveries")),
        ("operator", ("", "/models", "/health", "/deliveries")),
        ("admin", PATHS),
    ],
)
def test_a_role_opens_its_own_pages_and_is_shown_no_other(
    url: str, db: Database, keyring: Keyring, role: str, open_pages: tuple[str, ...]
) -> None:
    with visitor(url, key_of(db, keyring, role)) as person:
        statuses = {path: person.get(f"/console/fleet{path}").status_code for path in PATHS}
        assert statuses == {path: 200 if path in open_pages else 403 for path in PATHS}
        if open_pages:
            tabs = re.search(r'<nav class="tabs".*?</nav>', person.get("/console/fleet").text, re.DOTALL).group()
            assert re.findall(r'href="/console/fleet([^"]*)"', tabs) == list(open_pages)


def test_workers_and_queues_are_shown_as_their_rows_say(url: str, db: Database, keyring: Keyring) -> None:
    worker(db, f"worker@host-1:{HOSTILE}")
    worker(db, "worker@host-2")
    worker(db, "worker@host-3", WorkerState.STOPPED)
    change(db, "update worker set seen_at = now() - interval '1 minute' where name = 'worker@host-2'")
    submit(db, keyring, 10, shard_texts=4)
    fleet.write_wanted(db, {"any": 3})
    with visitor(url, key_of(db, keyring, "viewer")) as person:
        page = person.get("/console/fleet").text
        part = person.get("/console/fleet", headers={"hx-request": "true"}).text
    assert [page.count(state) for state in (">ready<", ">lost<", ">stopped<")] == [1, 1, 1]
    for shown in ("0123456789ab", "cuda:0", "2 GiB / 8 GiB", "1,234", "⟨U+202E⟩", "any model"):
        assert shown in page, shown
        assert shown in part, shown
    assert "<script>x" not in page
    assert "<html" not in part
    assert re.search(r'any model</td><td class="n">3</td><td class="n">0</td><td class="n">0</td><td class="n">10</td>', page)
    assert re.search(r"<td>any</td><td class=\"n\">3</td>", page)


def test_another_tenant_sees_no_host_no_other_work_and_no_deployment(url: str, db: Database, keyring: Keyring) -> None:
    worker(db, "worker@host-1")
    submit(db, keyring, 10)
    made = deployed(db, keyring, DeploymentState.CANARY)
    with visitor(url, key_of(db, keyring, "admin", tenant="other")) as stranger:
        page = stranger.get("/console/fleet").text
        assert "host-1" not in page
        assert "No text waits" in page
        assert "Models that are served" in page
        assert "/console/fleet/models" not in page
        assert "dispatcher" not in stranger.get("/console/fleet/health").text
        for path in ("/models", f"/models/{made.label}"):
            assert stranger.get(f"/console/fleet{path}").status_code == 404
        for path in ("/models", "/models/roll-back", f"/models/{made.label}/stop", f"/models/{made.label}/promote"):
            assert send(stranger, f"/fleet{path}", detector="guard", model="x", how="all").status_code == 404
    assert deployments.get(db, made.label, detector="guard").told is DeploymentState.CANARY


def test_an_operator_deploys_promotes_stops_and_rolls_back(url: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, key_of(db, keyring, "operator")) as person:
        sent = send(person, "/fleet/models", model="org/name", revision="v1", detector="guard", how="canary", share="7.5")
        assert sent.status_code == 303, sent.text
        (one,) = deployments.every(db)
        assert (one.model, one.revision, one.told, one.share) == ("org/name", "v1", DeploymentState.CANARY, 0.075)
        assert (one.canary_texts, one.min_agreement) == (1000, 0.98)
        assert sent.headers["location"] == f"/console/fleet/models/{one.label}?done=deployed"
        again = send(person, "/fleet/models", model="x", detector="guard", how="all")
        assert again.status_code == 400
        assert "under way" in again.text
        assert send(person, f"/fleet/models/{one.label}/promote").status_code == 303
        assert send(person, f"/fleet/models/{one.label}/promote").status_code == 400
        assert send(person, "/fleet/models/roll-back", detector="guard").status_code == 303
        assert send(person, "/fleet/models/roll-back", detector="guard").status_code == 400
        send(person, "/fleet/models", model="second", detector="guard", how="shadow", share="10")
        second = deployments.every(db)[0]
        assert send(person, f"/fleet/models/{second.label}/stop").status_code == 303
        assert "stopped by key_" in person.get(f"/console/fleet/models/{second.label}").text
    trail = [event.action for event in audit.events(db, audit.Wanted(subject=one.label))]
    assert trail == ["deployment.create", "deployment.promote", "deployment.roll_back"]


WRONG: list[dict[str, str]] = [
    {"model": ""}, {"model": "a\nb"}, {"share": "0"}, {"share": "101"}, {"share": "nan"}, {"how": "now"}, {"detector": "A b"},
    {"detector": "nobody-served-it"}, {"canary_texts": "1"}, {"min_agreement": "101"}, {"model": "x" * 501},
]  # fmt: skip


def test_a_deployment_that_cannot_be_meant_is_refused(url: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, key_of(db, keyring, "operator")) as person:
        for wrong in WRONG:
            asked = {"model": "m", "detector": "guard", "how": "canary", "share": "5", **wrong}
            assert send(person, "/fleet/models", **asked).status_code in (400, 404), wrong
    assert deployments.every(db) == []


def test_a_viewer_changes_no_model(url: str, db: Database, keyring: Keyring) -> None:
    made = deployed(db, keyring, DeploymentState.CANARY)
    with visitor(url, key_of(db, keyring, "viewer")) as person:
        for path in (f"/models/{made.label}", "/models"):
            assert "<form method" not in person.get(f"/console/fleet{path}").text.partition("<main")[2]
        for path in ("/models", "/models/roll-back", f"/models/{made.label}/stop"):
            assert send(person, f"/fleet{path}", detector="guard", model="x", how="all").status_code == 403
        assert person.post(f"/console/fleet/models/{made.label}/stop").status_code == 403  # without a token
    assert deployments.get(db, made.label, detector="guard").told is DeploymentState.CANARY


def test_a_deployment_shows_agreement_flips_and_texts_of_the_tenants_own_jobs(url: str, db: Database, keyring: Keyring) -> None:
    made = deployed(db, keyring, DeploymentState.SHADOW)
    mine = submit(db, keyring, 3)
    change(db, "insert into tenant (name) values ('other')")
    theirs = submit(db, keyring, 3, mark=" theirs")
    change(db, f"update job set tenant_id = (select id from tenant where name = 'other') where id = {theirs.id}")
    cells = {
        Cell("en", "severity", "safe", "safe"): 90,
        Cell("de", "severity", "safe", "unsafe"): 10,
        Cell("de", "violent", "not", "named"): 10,
    }
    places = [Place(mine.id, 1, "safe", "unsafe"), Place(theirs.id, 2, "safe", "unsafe")]
    comparisons.add(db, made.id, Batch(cells, places, compared=comparisons.Compared(100, 90)))
    deployments.halt(db, made, f"because {HOSTILE}")
    with visitor(url, key_of(db, keyring, "viewer")) as person:
        page = person.get(f"/console/fleet/models/{made.label}").text
        for missing in ("deployment_99", "deployment_٣", "deployment_" + "9" * 30, "nonsense", "deployment_"):
            assert person.get(f"/console/fleet/models/{missing}").status_code == 404, missing
    for shown in ("90.0 %", "violent", "<td>de</td>", mine.label, "because &lt;script&gt;"):
        assert shown in page, shown
    assert theirs.label not in page


def test_health_says_in_sentences_what_is_wrong(url: str, db: Database, keyring: Keyring) -> None:
    worker(db, "worker@host-1")
    change(db, "update worker set seen_at = now() - interval '1 minute'")
    with visitor(url, key_of(db, keyring, "operator")) as person:
        page = person.get("/console/fleet/health").text
        for said in ("No dispatcher leads", "The broker answers", "0 workers are there", "1 workers were lost", "No text waits"):
            assert said in page, said
        csrf = csrf_in(page)
        person.post("/console/preferences", data={"language": "zh", "csrf": csrf})
        assert "没有调度器在主导" in person.get("/console/fleet/health").text

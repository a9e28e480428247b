"""No page of the console fails, or shows as markup what others wrote, whatever it is asked; other tenants' things do not exist."""

from collections.abc import Iterator

import httpx2
import pytest

from api.server import create_app
from guardfleet.domain import ids
from guardfleet.domain.options import JobOptions
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.postgres.database import Database
from tests.services.console_fuzz import HOSTILE, MARK, console_of, marked, requests_of, routes_of, wrong_with
from tests.services.fixtures import with_broker
from tests.services.served import served
from tests.services.stored import new_job, submit
from tests.services.visiting import csrf_in, key_of, visitor

pytestmark = [with_broker("redis")]

EACH = 6
LEAST_ROUTES, LEAST_SHOWN = 9, 4
SEED = 20261130


@pytest.fixture
def somebody(settings: Settings, db: Database, keyring: Keyring) -> Iterator[httpx2.Client]:
    """An admin."""
    key = key_of(db, keyring, "admin", name="root")
    with served(settings.but(moderation_timeout_s=0.01)) as url, visitor(url, key) as found:
        yield found


def test_no_page_fails_whatever_it_is_asked(somebody: httpx2.Client, settings: Settings, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 2)
    csrf = csrf_in(somebody.get("/console/preferences").text)
    known = {"job": ids.JOB.of(job.public_id), "seq": "0"}
    asked = list(requests_of(console_of(create_app(settings)), known, seed=SEED, each=EACH))
    assert len(asked) >= EACH * LEAST_ROUTES
    wrong = [found for one in asked if (found := wrong_with(somebody, one, csrf))]
    assert not wrong, "\n".join(wrong[:40])


def test_what_others_wrote_is_text_on_every_page(
    somebody: httpx2.Client, settings: Settings, db: Database, keyring: Keyring
) -> None:
    """Each page without further parts, with a job whose every field is hostile."""
    evil = HOSTILE[0]
    settings = settings.but(retry_base_s=0.01)
    with Intake(db, keyring, settings, NewJob(JobOptions(name=evil, metadata={"source": evil}))) as intake:
        intake.add_all([(1, PayloadRow(evil, evil, metadata={"language": evil}))])
        job = intake.seal()
    seen = []
    for route in routes_of(console_of(create_app(settings))):
        path = route.path.replace("{job}", ids.JOB.of(job.public_id)).replace("{seq}", "0").replace("{seq:int}", "0")
        if "GET" in (route.methods or ()) and "{" not in path:
            page = somebody.get(f"/console{path}").text
            assert not marked(page), path
            seen += [path] if "&lt;script&gt;" in page else []
    assert len(seen) >= LEAST_SHOWN, seen


def test_another_tenants_things_do_not_exist(settings: Settings, db: Database, keyring: Keyring) -> None:
    """Asked by an admin of another tenant, a job's pages are not there, and its name stands nowhere."""
    job = submit(db, keyring, 2, new=new_job(MARK))
    key = key_of(db, keyring, "admin", name="root", tenant="another")
    with served(settings.but(moderation_timeout_s=0.01)) as url, visitor(url, key) as stranger:
        csrf = csrf_in(stranger.get("/console/preferences").text)
        for route in routes_of(console_of(create_app(settings))):
            path = route.path.replace("{job}", ids.JOB.of(job.public_id)).replace("{seq}", "0").replace("{seq:int}", "0")
            if "{" in path:
                continue
            is_post = "POST" in (route.methods or ())
            answer = stranger.post(f"/console{path}", data={"csrf": csrf}) if is_post else stranger.get(f"/console{path}")
            assert MARK not in answer.text, path
            if "{job}" in route.path:
                assert answer.status_code == 404, f"{path}: {answer.status_code}"

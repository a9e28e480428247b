"""Downloading a job's report from the console."""

from collections.abc import Iterator

import pytest

from guardfleet.domain.scopes import ROLES
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit, keys
from guardfleet.store.postgres.database import Database
from tests.http.test_console import visitor
from tests.services.fixtures import with_broker
from tests.services.served import judge, served
from tests.services.stored import submit

pytestmark = [with_broker("redis")]


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with served(settings) as found:
        yield found


def test_a_report_is_a_download_of_ones_own_job(url: str, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 6)
    judge(db, job.label)
    viewer = keys.create(db, keyring, name="viewer", scopes=ROLES["viewer"])
    with visitor(url, viewer) as person:
        plain = person.get(f"/console/jobs/{job.label}/report")
        assert plain.status_code == 200
        assert plain.headers["content-disposition"] == f'attachment; filename="{job.label}.html"'
        assert plain.headers["cache-control"] == "no-store"
        assert "Moderation report" in plain.text
        assert "text 0" not in plain.text
        assert not list(audit.events(db, audit.Wanted(actions=["job.export"])))
        assert "text 0" in person.get(f"/console/jobs/{job.label}/report?texts=1").text
        (event,) = audit.events(db, audit.Wanted(actions=["job.export"]))
        assert event.request_id is not None
        assert person.get("/console/jobs/job_00000000000000000000000000000000/report").status_code == 404
        assert person.get("/console/jobs/x/report").status_code == 404
    others = keys.create(db, keyring, name="stranger", scopes=ROLES["admin"], tenant="other")
    with visitor(url, others) as stranger:
        assert stranger.get(f"/console/jobs/{job.label}/report").status_code == 404
    reviewer = keys.create(db, keyring, name="reviewer", scopes=ROLES["reviewer"])
    with visitor(url, reviewer) as person:
        assert person.get(f"/console/jobs/{job.label}/report").status_code == 403

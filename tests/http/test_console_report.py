"""Downloading a job's report from the console."""

from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.served import judge
from tests.services.stored import submit
from tests.services.visiting import key_of, send, visitor

pytestmark = [with_broker("redis")]


def test_a_report_is_a_download_of_ones_own_job(url: str, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 6)
    judge(db, job.label)
    viewer = key_of(db, keyring, "viewer", name="viewer")
    with visitor(url, viewer) as person:
        plain = person.get(f"/console/jobs/{job.label}/report")
        assert plain.status_code == 200
        assert plain.headers["content-disposition"] == f'attachment; filename="{job.label}.html"'
        assert plain.headers["cache-control"] == "no-store"
        assert "Moderation report" in plain.text
        assert "text 0" not in plain.text
        assert not list(audit.events(db, audit.Wanted(actions=["job.export"])))
        full = send(person, f"/jobs/{job.label}/report")
        assert full.headers["content-disposition"] == plain.headers["content-disposition"]
        assert "text 0" in full.text
        (event,) = audit.events(db, audit.Wanted(actions=["job.export"]))
        assert event.request_id is not None
        assert person.get("/console/jobs/job_00000000000000000000000000000000/report").status_code == 404
        assert person.get("/console/jobs/x/report").status_code == 404
    others = key_of(db, keyring, "admin", name="stranger", tenant="other")
    with visitor(url, others) as stranger:
        assert stranger.get(f"/console/jobs/{job.label}/report").status_code == 404
    reviewer = key_of(db, keyring, "reviewer", name="reviewer")
    with visitor(url, reviewer) as person:
        assert person.get(f"/console/jobs/{job.label}/report").status_code == 403

"""The console's page of the audit trail: filters, pages, names of keys, links to what was done to; of one tenant alone."""

import re
from contextvars import copy_context

from guardfleet.domain import ids
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, keys
from guardfleet.store.audit import Actor
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.stored import submit
from tests.services.visiting import key_of, visitor

pytestmark = [with_broker("redis")]

TRAIL = "/console/fleet/audit"


def actions(page: str) -> list[str]:
    return re.findall(r"<td><code>([\w.]+)</code>", page)


def test_filters_narrow_the_trail_and_names_and_links_are_shown(url: str, db: Database, keyring: Keyring) -> None:
    admin_key = key_of(db, keyring, "admin")
    job = submit(db, keyring, 1)
    with visitor(url, admin_key) as admin:
        whole = admin.get(TRAIL).text
        assert {"session.begin", "job.create", "key.create"} <= set(actions(whole))
        assert f'<a href="/console/jobs/{job.label}">' in whole
        assert re.search(r'<a href="/console/fleet/keys#key_[0-9a-f]+">', whole)
        assert "admin of default<br>" in whole  # the name of a key, as actor and as subject
        batch = ids.BATCH.of(job.public_id)
        for asked, expected in (
            ("action=job.create", ["job.create"]),
            (f"subject={job.label}", ["job.create"]),
            (f"subject={batch}", ["job.create"]),
            ("actor=key", ["session.begin"]),
            ("since=24h&action=key.create", ["key.create"]),
            ("until=2020-01-01", []),
            ("subject=%3Cscript%3Ex", []),
            ("subject=%ED%A0%80", []),
        ):
            page = admin.get(f"{TRAIL}?{asked}").text
            assert actions(page) == expected, asked
            assert "<script>x" not in page
        for wrong in ("action=job.dance", "since=soon", "after=audit_1", "actor=a%00b"):
            assert admin.get(f"{TRAIL}?{wrong}").status_code in (400, 404), wrong


def test_pages_meet_each_row_once(url: str, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    with db.begin() as connection:
        for _ in range(120):  # of one transaction, so of one time
            audit.record(connection, 1, "job.pause", job.label, priority=1)
    seen, at = [], f"{TRAIL}?action=job.pause&since=7d"
    with visitor(url, key_of(db, keyring, "admin")) as admin:
        while at:
            page = admin.get(at).text
            seen.append(len(actions(page)))
            found = re.search(r'rel="next" href="([^"]+)"', page)
            at = found.group(1).replace("&amp;", "&") if found else ""
            assert not at or "action=job.pause" in at
    assert seen == [50, 50, 20]


def test_another_tenants_trail_and_names_are_not_shown(url: str, db: Database, keyring: Keyring) -> None:
    foreign = keys.authenticate(db, keyring, key_of(db, keyring, "admin", tenant="other"))
    assert foreign is not None
    job = submit(db, keyring, 1)
    copy_context().run(_pause_as, db, Actor("key", foreign.label), job.label)
    event = next(audit.events(db, audit.Wanted(tenant_id=1, actions=["job.pause"])))
    with visitor(url, key_of(db, keyring, "admin")) as admin:
        page = admin.get(TRAIL).text
        assert foreign.label in page
        assert "admin of other" not in page
    with visitor(url, key_of(db, keyring, "admin", tenant="other")) as stranger:
        page = stranger.get(TRAIL).text
        assert job.label not in page
        assert "job.pause" not in actions(page)
        assert stranger.get(f"{TRAIL}?after={event.label}").status_code == 404


def _pause_as(db: Database, actor: Actor, job: str) -> None:
    audit.act_as(actor)
    with db.begin() as connection:
        audit.record(connection, 1, "job.pause", job)

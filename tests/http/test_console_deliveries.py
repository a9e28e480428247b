"""The console's pages of webhooks: endpoints, deliveries with their attempts, sending again; a secret is shown once."""

import re

from guardfleet.security.encryption import Keyring
from guardfleet.store.events import endpoints
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.poison import change
from tests.services.stored import scalar
from tests.services.visiting import HOSTILE, key_of, send, visitor
from tests.services.webhooks import endpoint, failed

pytestmark = [with_broker("redis")]

URL = "http://127.0.0.1:9/hook"
SECRET = re.compile(r"whsec_[\w+/=-]+")


def states(db: Database) -> list[int]:
    with db.session() as connection:
        return connection.scalars("select state from delivery order by id")


def test_an_endpoint_is_made_and_its_secret_is_shown_once(url: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, key_of(db, keyring, "operator")) as person:
        made = send(person, "/fleet/deliveries", name=HOSTILE, url=URL, kind="batch.completed")
        assert made.status_code == 200, made.text
        (secret,) = SECRET.findall(made.text)
        assert "<script>x" not in made.text
        (one,) = endpoints.page(db, tenant_id=1, after=None, limit=10)
        assert (one.name, one.url, one.kinds) == (HOSTILE, URL, ["batch.completed"])
        for path in ("/deliveries", f"/deliveries/{one.label}"):
            page = person.get(f"/console/fleet{path}").text
            assert not SECRET.search(page)
            assert "<script>x" not in page
        rotated = send(person, f"/fleet/deliveries/{one.label}/rotate", keep="yes")
        (other,) = SECRET.findall(rotated.text)
        assert other != secret
        for wrong in ({"name": ""}, {"url": "ftp://x"}, {"url": "http://10.0.0.1/"}, {"kind": "nothing"}, {"kind": ""}):
            refused = send(person, "/fleet/deliveries", **{"name": "x", "url": URL, "kind": "batch.completed", **wrong})
            assert refused.status_code == 400, (wrong, refused.text)
        assert send(person, f"/fleet/deliveries/{one.label}/delete").status_code == 303
    assert endpoints.page(db, tenant_id=1, after=None, limit=10) == []


def test_a_delivery_shows_why_it_failed_and_is_sent_again_alone_or_with_all(url: str, db: Database, keyring: Keyring) -> None:
    made, _ = endpoint(db, keyring, URL)
    first, *_ = failed(db, made, 3)
    base = f"/deliveries/{made.label}"
    with visitor(url, key_of(db, keyring, "operator")) as person:
        overview = person.get("/console/fleet/deliveries").text
        assert re.search(r'<td class="n">0</td><td class="n">0</td><td class="n">3</td>', overview)
        page = person.get(f"/console/fleet{base}?state=exhausted").text
        assert page.count("503 · answered 503") == 3
        assert "503" not in person.get(f"/console/fleet{base}?state=delivered").text.partition('id="sent"')[2]
        assert "answered 503" in person.get(f"/console/fleet{base}/{first}").text
        assert send(person, f"/fleet{base}/{first}/retry").status_code == 303
        assert states(db) == [0, 3, 3]
        assert send(person, f"/fleet{base}/{first}/retry").status_code == 404  # it is on its way
        assert send(person, f"/fleet{base}/recover", since="yesterday").status_code == 400
        assert send(person, f"/fleet{base}/recover", since="24h").headers["location"].endswith("done=resent")
        assert states(db) == [0, 0, 0]
        assert send(person, f"/fleet{base}/recover", since="24h").headers["location"].endswith("done=nothing_resent")
        for path in (f"{base}/999999", f"{base}/x", f"{base}/{'9' * 40}", "/deliveries/we_nonsense"):
            assert person.get(f"/console/fleet{path}").status_code == 404, path


def test_deliveries_come_in_pages(url: str, db: Database, keyring: Keyring) -> None:
    made, _ = endpoint(db, keyring, URL)
    failed(db, made, 70)
    with visitor(url, key_of(db, keyring, "viewer")) as person:
        first = person.get(f"/console/fleet/deliveries/{made.label}?state=exhausted").text
        following = re.search(r'rel="next" href="([^"]+)"', first).group(1).replace("&amp;", "&")
        second = person.get(following).text
    seen = [set(re.findall(r"evt_[0-9a-f-]+", page)) for page in (first, second)]
    assert [len(one) for one in seen] == [50, 20]
    assert not seen[0] & seen[1]


def test_an_endpoint_is_disabled_enabled_and_tested(url: str, db: Database, keyring: Keyring) -> None:
    made, _ = endpoint(db, keyring, URL)
    base = f"/deliveries/{made.label}"
    change(db, """create function at_once() returns trigger language plpgsql as $$ begin
                    insert into attempt (delivery_id, attempt_no, status, latency_ms) values (new.id, 1, 500, 1);
                    return new; end $$;
                  create trigger at_once after insert on delivery for each row execute function at_once()""")  # fmt: skip
    with visitor(url, key_of(db, keyring, "operator")) as person:
        assert send(person, f"/fleet{base}/switch", enabled="no").status_code == 303
        assert not endpoints.get(db, made.public_id, tenant_id=1).enabled
        assert "disabled" in person.get(f"/console/fleet{base}").text
        assert send(person, f"/fleet{base}/switch", enabled="yes").status_code == 303
        assert endpoints.get(db, made.public_id, tenant_id=1).enabled
        refused = send(person, f"/fleet{base}/test", kind="batch.completed")
        assert refused.status_code == 400
        assert "answered 500" in refused.text
        change(db, "create or replace function at_once() returns trigger language plpgsql as $$ begin "
                   "insert into attempt (delivery_id, attempt_no, status, latency_ms) values (new.id, 1, 200, 1); "
                   "return new; end $$")  # fmt: skip
        assert send(person, f"/fleet{base}/test", kind="batch.completed").headers["location"].endswith("done=tested")


def test_another_tenants_endpoints_do_not_exist_and_a_viewer_changes_none(url: str, db: Database, keyring: Keyring) -> None:
    made, _ = endpoint(db, keyring, URL)
    (delivery,) = failed(db, made)
    base = f"/deliveries/{made.label}"
    acts = (f"{base}/{delivery}/retry", f"{base}/recover", f"{base}/test", f"{base}/switch", f"{base}/rotate", f"{base}/delete")
    fields = {"since": "24h", "kind": "batch.completed", "enabled": "no"}
    with visitor(url, key_of(db, keyring, "admin", tenant="other")) as stranger:
        assert made.label not in stranger.get("/console/fleet/deliveries").text
        for path in (base, f"{base}/{delivery}"):
            assert stranger.get(f"/console/fleet{path}").status_code == 404
        for path in acts:
            assert send(stranger, f"/fleet{path}", **fields).status_code == 404, path
    with visitor(url, key_of(db, keyring, "viewer")) as viewer:
        assert '<form method="post"' not in viewer.get(f"/console/fleet{base}").text.partition("<main")[2]
        for path in (*acts, "/deliveries"):
            assert send(viewer, f"/fleet{path}", **fields).status_code == 403, path
    assert states(db) == [3]
    assert scalar(db, "select enabled from endpoint")

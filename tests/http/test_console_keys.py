"""The console's pages of keys and sessions: a key is shown once, may no more than its maker, and belongs to its tenant alone."""

import re

import pytest

from guardfleet.domain.scopes import ROLES
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys, sessions
from guardfleet.store.keys import ApiKey
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.visiting import HOSTILE, key_of, send, visitor

pytestmark = [with_broker("redis")]

KEY = re.compile(r"gf_[\w-]{43}")


def named(db: Database, name: str) -> list[ApiKey]:
    return [one for one in keys.every(db) if one.name == name]


def test_a_key_is_shown_once_and_never_again(url: str, db: Database, keyring: Keyring, capfd: pytest.CaptureFixture[str]) -> None:
    with visitor(url, key_of(db, keyring, "admin")) as admin:
        made = send(admin, "/fleet/keys", name=f"nightly {HOSTILE[:-1]}", role="viewer", days="30")
        assert made.status_code == 200, made.text
        (secret,) = KEY.findall(made.text)
        assert "Copy it now" in made.text
        assert "<script>x" not in made.text
        assert made.headers["cache-control"] == "no-store"
        for path in ("/keys", "/sessions", "/audit", ""):
            assert secret not in admin.get(f"/console/fleet{path}").text
    caller = keys.authenticate(db, keyring, secret)
    assert caller is not None
    assert caller.scopes == ROLES["viewer"]
    (row,) = [one for one in keys.every(db) if one.name.startswith("nightly")]
    assert row.expires_at is not None
    assert (row.tenant, round((row.expires_at - row.created_at).total_seconds() / 86_400)) == ("default", 30)
    said = capfd.readouterr()
    assert secret not in said.out + said.err


def test_nobody_makes_a_key_that_may_more(url: str, db: Database, keyring: Keyring) -> None:
    limited = keys.create(db, keyring, name="limited", scopes=["keys:write", "batches:read"])
    strong = keys.create(db, keyring, name="strong", scopes=["all", "erasures:write"])
    with visitor(url, limited) as person:
        page = person.get("/console/fleet/keys").text
        assert re.findall(r'<option value="(\w+)"', page) == []  # no role is within what the person may
        assert re.findall(r'name="scope" value="([^"]+)"', page) == ["batches:read", "keys:write"]
        for asked in ({"role": "viewer"}, {"role": "admin"}, {"scope": "all"}, {"scope": "batches:write"}, {"scope": "audit:read"}):
            assert send(person, "/fleet/keys", name="more", **asked).status_code == 400, asked
        (row,) = named(db, "strong")
        assert send(person, f"/fleet/keys/{row.label}/rotate", hours="1").status_code == 400
        assert send(person, "/fleet/keys", name="same", scope="batches:read").status_code == 200
    assert named(db, "more") == []
    assert len(named(db, "strong")) == 1
    assert named(db, "strong")[0].expires_at is None  # nothing of the refused rotation is left
    assert keys.authenticate(db, keyring, strong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "x" * 201}, {"name": "a\nb"}, {"role": ""}, {"role": "king"}, {"scope": "moderate"}, {"days": "-1"},
        {"days": "99999"}, {"role": "", "scope": "everything"},
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_meant_is_not_made(url: str, db: Database, keyring: Keyring, wrong: dict[str, str]) -> None:
    with visitor(url, key_of(db, keyring, "admin")) as admin:
        assert send(admin, "/fleet/keys", **{"name": "k", "role": "viewer", **wrong}).status_code == 400
    assert len(keys.every(db)) == 1


def test_a_key_is_rotated_with_overlap_and_revoked_with_its_sessions(url: str, db: Database, keyring: Keyring) -> None:
    old = key_of(db, keyring, "viewer")
    caller = keys.authenticate(db, keyring, old)
    assert caller is not None
    token = sessions.begin_by_key(db, caller, hours=1)
    with visitor(url, key_of(db, keyring, "admin")) as admin:
        rotated = send(admin, f"/fleet/keys/{caller.label}/rotate", hours="2")
        (new,) = KEY.findall(rotated.text)
        assert keys.authenticate(db, keyring, old)
        assert keys.authenticate(db, keyring, new)
        revoked = send(admin, f"/fleet/keys/{caller.label}/revoke")
        assert (revoked.status_code, revoked.headers["location"]) == (303, "/console/fleet/keys?done=revoked")
        assert send(admin, f"/fleet/keys/{caller.label}/rotate", hours="2").status_code == 404  # it is in use no more
    assert keys.authenticate(db, keyring, old) is None
    assert keys.authenticate(db, keyring, new)
    assert sessions.find(db, token) is None


def test_another_tenants_keys_and_sessions_do_not_exist(url: str, db: Database, keyring: Keyring) -> None:
    mine = key_of(db, keyring, "viewer")
    caller = keys.authenticate(db, keyring, mine)
    assert caller is not None
    token = sessions.begin_by_key(db, caller, hours=1)
    found = sessions.find(db, token)
    assert found is not None
    with visitor(url, key_of(db, keyring, "admin", tenant="other")) as stranger:
        for path in ("/keys", "/sessions"):
            page = stranger.get(f"/console/fleet{path}").text
            assert caller.label not in page
            assert "admin of other" in page
        for path in (f"/keys/{caller.label}/revoke", f"/keys/{caller.label}/rotate", f"/sessions/{found.id}/end"):
            assert send(stranger, f"/fleet{path}").status_code == 404, path
        for path in ("/keys/nonsense/revoke", "/sessions/x/end", f"/sessions/{'9' * 40}/end"):
            assert send(stranger, f"/fleet{path}").status_code == 404, path
    assert keys.authenticate(db, keyring, mine)
    assert sessions.find(db, token)


def test_an_admin_sees_who_is_signed_in_and_ends_a_session(url: str, db: Database, keyring: Keyring) -> None:
    caller = keys.authenticate(db, keyring, key_of(db, keyring, "viewer"))
    assert caller is not None
    token = sessions.begin_by_key(db, caller, hours=1)
    with visitor(url, key_of(db, keyring, "admin")) as admin:
        page = admin.get("/console/fleet/sessions").text
        assert "viewer of default" in page
        assert "(this one)" in page
        found = sessions.find(db, token)
        assert found is not None
        assert send(admin, f"/fleet/sessions/{found.id}/end").status_code == 303
        assert sessions.find(db, token) is None
        trail = admin.get("/console/fleet/audit?action=session.end").text
        assert caller.label in trail
        assert "admin of default" in trail
    for role in ("viewer", "operator"):
        with visitor(url, key_of(db, keyring, role)) as person:
            for path in ("/keys", "/keys/key_x/revoke", "/sessions/1/end"):
                assert send(person, f"/fleet{path}", name="k", role="viewer").status_code == 403


def test_keys_come_in_pages(url: str, db: Database, keyring: Keyring) -> None:
    admin_key = key_of(db, keyring, "admin")
    for i in range(60):
        keys.create(db, keyring, name=f"many{i}", scopes=["moderate"])
    with visitor(url, admin_key) as admin:
        first = admin.get("/console/fleet/keys").text
        after = re.search(r'href="(/console/fleet/keys\?after=[^"]+)"', first).group(1)
        second = admin.get(after).text
    seen = [re.findall(r">(many\d+)<", page.replace("\n", "")) or re.findall(r"many\d+", page) for page in (first, second)]
    assert len({*seen[0], *seen[1]}) == 60
    assert not {*seen[0]} & {*seen[1]}

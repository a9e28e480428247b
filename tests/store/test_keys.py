"""API keys: scopes, expiry, successors, and what is never shown again."""

import pytest

from guardfleet.domain.scopes import ROLES, scopes_of
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database
from tests.services.stored import scalar


def test_a_key_may_what_its_scopes_say() -> None:
    reader = Caller(1, 1, ("batches:read", "files:write"))
    assert [reader.may(scope) for scope in ("batches:read", "batches:write", "files:read", "files:write", "moderate")] == [
        True, False, True, True, False,
    ]  # fmt: skip
    assert {scope for scope in keys.SCOPES if not Caller(1, 1).may(scope)} == {
        "audit:read",
        "erasures:write",
        "holds:write",
        "keys:write",
    }
    assert Caller(1, 1, ("audit:read",)).may("audit:read")


def test_a_key_is_stored_as_its_digest_alone(db: Database, keyring: Keyring) -> None:
    secret = keys.create(db, keyring, name="mine", scopes=["moderate"])
    caller = keys.authenticate(db, keyring, secret)
    assert caller is not None
    assert caller.scopes == ("moderate",)
    assert not scalar(db, f"select exists (select from api_key k where k::text like '%%{secret[3:]}%%')")
    (key,) = keys.every(db)
    assert (key.name, key.hint, key.last_used_at is not None) == ("mine", secret[-4:], True)
    with pytest.raises(RejectedError, match="got everything"):
        keys.create(db, keyring, name="x", scopes=["everything"])


def test_revoked_and_expired_keys_are_taken_no_more(db: Database, keyring: Keyring) -> None:
    secret = keys.create(db, keyring, name="short", expires_s=-1)
    assert keys.authenticate(db, keyring, secret) is None
    secret = keys.create(db, keyring, name="long", expires_s=3600)
    assert keys.authenticate(db, keyring, secret)
    label = keys.every(db)[-1].label
    for _ in range(2):
        keys.revoke(db, label)
    assert keys.authenticate(db, keyring, secret) is None
    for call in (lambda: keys.revoke(db, "key_nonsense"), lambda: keys.rotate(db, keyring, label, overlap_s=1)):
        with pytest.raises(NotFoundError, match="guardfleet keys list"):
            call()


def test_a_successor_has_the_same_rights_and_the_old_key_a_while(db: Database, keyring: Keyring) -> None:
    first = keys.create(db, keyring, name="k", tenant="other", scopes=["files:read"], expires_s=7200)
    old, *_ = keys.every(db)
    _, second = keys.rotate(db, keyring, old.label, overlap_s=60)
    mine, theirs = keys.authenticate(db, keyring, first), keys.authenticate(db, keyring, second)
    assert mine is not None
    assert theirs is not None
    assert (mine.tenant_id, mine.scopes) == (theirs.tenant_id, theirs.scopes)
    ended, successor = keys.every(db)
    assert ended.expires_at is not None
    assert old.expires_at is not None
    assert successor.expires_at is not None
    assert ended.expires_at < old.expires_at
    assert abs((successor.expires_at - old.expires_at).total_seconds()) < 1
    keys.rotate(db, keyring, successor.label, overlap_s=0)
    assert keys.authenticate(db, keyring, second) is None


def test_a_maker_gives_only_what_it_has_and_in_its_own_tenant(db: Database, keyring: Keyring) -> None:
    keys.create(db, keyring, name="k", tenant="other")
    maker = Caller(1, keys.tenant_id(db, "other"), ("batches:write", "keys:write"))
    label, secret = keys.create_for(db, keyring, maker, name="reader", scopes=["batches:read"])
    made = keys.authenticate(db, keyring, secret)
    assert made is not None
    assert (made.label, made.tenant_id, made.scopes) == (label, maker.tenant_id, ("batches:read",))
    for beyond in (["all"], ["batches:read", "moderate"], ["audit:read"]):
        with pytest.raises(RejectedError, match="you lack"):
            keys.create_for(db, keyring, maker, name="more", scopes=beyond)
    assert [key.name for key in keys.of_tenant(db, maker.tenant_id)] == ["reader", "k"]
    assert keys.names(db, maker.tenant_id, [label, "key_x", "job_1"]) == {label: "reader"}
    assert keys.names(db, 1, [label]) == {}
    with pytest.raises(NotFoundError):
        keys.get(db, label, tenant_id=1)
    with pytest.raises(NotFoundError):
        keys.revoke(db, label, tenant_id=1)


@pytest.mark.parametrize(("role", "scopes"), [("", []), ("viewer", ["moderate"]), ("king", [])])
def test_a_key_has_a_role_or_scopes(role: str, scopes: list[str]) -> None:
    with pytest.raises(RejectedError, match="role"):
        scopes_of(role, scopes)
    assert scopes_of("viewer", []) == ROLES["viewer"]
    assert scopes_of("", ["moderate"]) == ("moderate",)

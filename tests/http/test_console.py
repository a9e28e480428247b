"""The console's frame: signing in and out, who may do what, and what every answer says to browsers."""

import re

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.store import keys, sessions
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.stored import scalar
from tests.services.visiting import csrf_in, key_of, send, visitor

pytestmark = [with_broker("redis")]


@pytest.fixture
def admin_key(db: Database, keyring: Keyring) -> str:
    return key_of(db, keyring, "admin", name="root")


def test_a_stranger_is_sent_to_the_sign_in_and_back_to_the_page_afterwards(url: str, admin_key: str) -> None:
    with visitor(url) as stranger:
        for path in ("/", "/console"):
            assert stranger.get(path, headers={"host": "evil.test"}).headers["location"] == "/console/"
        sent = stranger.get("/console/jobs?state=running")
        assert (sent.status_code, sent.headers["location"]) == (303, "/console/sign-in?next=%2Fconsole%2Fjobs%3Fstate%3Drunning")
        form = stranger.get(sent.headers["location"])
        assert 'value="/console/jobs?state=running"' in form.text
        back = stranger.post("/console/sign-in", data={"key": admin_key, "next": "/console/jobs?state=running"})
        assert (back.status_code, back.headers["location"]) == (303, "/console/jobs?state=running")
        assert stranger.get("/console/jobs").status_code == 200


@pytest.mark.parametrize("elsewhere", ["https://evil.test/", "//evil.test/", "/console/\\evil.test", "/v1/batches", "javascript:x"])
def test_a_sign_in_leads_to_no_other_site(url: str, admin_key: str, elsewhere: str) -> None:
    with visitor(url) as stranger:
        assert stranger.post("/console/sign-in", data={"key": admin_key, "next": elsewhere}).headers["location"] == "/console/"


@pytest.mark.parametrize("mark", [{}, {"hx-request": "true"}], ids=["a form", "htmx"])
def test_a_way_back_is_an_address_in_any_letters(url: str, admin_key: str, mark: dict[str, str]) -> None:
    with visitor(url, admin_key) as person:
        csrf = csrf_in(person.get("/console/preferences").text)
        form = {"csrf": csrf, "next": "/console/lists/named/名单 é?x=ü"}
        page = {**mark, "hx-current-url": f"{url}/console/preferences?x=%E5%90%8D"}
        done = person.post("/console/preferences", data=form, headers=page)
        to = done.headers["hx-redirect" if mark else "location"]
        assert to == "/console/lists/named/%E5%90%8D%E5%8D%95%20%C3%A9?x=%C3%BC&done=saved"


def test_a_wrong_key_is_told_and_many_are_refused(url: str) -> None:
    with visitor(url) as stranger:
        wrong = stranger.post("/console/sign-in", data={"key": "gf_" + "x" * 43})
        assert wrong.status_code == 401
        assert "No key in use is this one" in wrong.text
        assert "set-cookie" not in wrong.headers
        statuses = [stranger.post("/console/sign-in", data={"key": "gf_no"}).status_code for _ in range(12)]
        assert statuses[-1] == 429


def test_every_answer_keeps_to_itself_and_out_of_caches(url: str, admin_key: str) -> None:
    with visitor(url, admin_key) as person:
        for path in ("/console/jobs", "/console/none", "/console/sign-in", "/console/preferences"):
            headers = person.get(path).headers
            assert headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["referrer-policy"] == "same-origin"
        cookie = person.post("/console/sign-in", data={"key": admin_key}).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie


def test_a_forged_action_is_refused(url: str, admin_key: str, db: Database) -> None:
    with visitor(url, admin_key) as person:
        csrf = csrf_in(person.get("/console/preferences").text)
        for forged in (
            {"data": {"theme": "dark"}},
            {"data": {"theme": "dark", "csrf": "0" * 64}},
            {"data": {"theme": "dark", "csrf": csrf}, "headers": {"origin": "https://evil.test"}},
            {"data": {"theme": "dark", "csrf": csrf}, "headers": {"sec-fetch-site": "cross-site"}},
            *({"data": {"theme": "dark", "csrf": csrf}, "headers": {"origin": odd}} for odd in ("null", "http://[", "//", "x")),
        ):
            assert person.post("/console/preferences", **forged).status_code == 403
        assert 'data-theme="auto"' in person.get("/console/preferences").text
        assert person.post("/console/preferences", data={"theme": "dark", "csrf": csrf}).status_code == 303
        assert 'data-theme="dark"' in person.get("/console/preferences").text


def test_a_session_ends_with_its_key_and_when_somebody_signs_out(url: str, admin_key: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, admin_key) as person:
        csrf = csrf_in(person.get("/console/preferences").text)
        assert person.post("/console/sign-out", data={"csrf": csrf}).headers["location"] == "/console/sign-in?done=signed_out"
        assert person.get("/console/jobs").status_code == 303
    caller = keys.authenticate(db, keyring, admin_key)
    token = sessions.begin_by_key(db, caller, hours=1)
    assert sessions.find(db, token).who == caller.label
    keys.revoke(db, caller.label)
    assert sessions.find(db, token) is None
    assert sessions.find(db, "no token") is None


@pytest.mark.parametrize(
    ("role", "areas"), [("reviewer", ["Review"]), ("viewer", ["Try it", "Jobs", "Verdicts", "Policies", "Lists", "Fleet"])]
)
def test_a_role_sees_its_own_areas(url: str, db: Database, keyring: Keyring, role: str, areas: list[str]) -> None:
    key = key_of(db, keyring, role)
    with visitor(url, key) as person:
        page = person.get(person.get("/console/").headers["location"]).text
        menu = re.search(r"<nav.*?</nav>", page, re.DOTALL).group()
        assert re.findall(r">([^<>]+)</a>", menu) == areas
        if role == "reviewer":
            assert person.get("/console/jobs").status_code == 403


def test_signing_in_again_ends_the_session_before_it(url: str, admin_key: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, admin_key) as person, visitor(url) as thief:
        thief.cookies.update(person.cookies)
        assert thief.get("/console/jobs").status_code == 200
        person.post("/console/sign-in", data={"key": key_of(db, keyring, "viewer")})
        assert scalar(db, "select array_agg(name) from console_session") == ["viewer of default"]
        assert thief.get("/console/jobs").status_code == 303
        assert "Jobs" in person.get("/console/jobs").text
    assert scalar(db, "select count(*) from audit_event where action = 'session.end'") == 1


def test_who_may_read_the_trail_alone_is_led_to_it(url: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, keys.create(db, keyring, name="auditor", scopes=("audit:read",))) as auditor:
        assert auditor.get("/console/").headers["location"] == "/console/fleet/audit"
        page = auditor.get("/console/fleet/audit")
        assert page.status_code == 200
        assert '<a href="/console/fleet/audit" aria-current="page">Audit trail</a>' in page.text


@pytest.mark.parametrize(("path", "field", "most"), [("/policies/check", "document", 1 << 20), ("/try", "text", 4 << 20)])
def test_a_form_is_as_large_as_its_page_needs(url: str, admin_key: str, path: str, field: str, most: int) -> None:
    with visitor(url, admin_key) as person:
        assert send(person, path, **{field: "x" * (most - 1000)}).status_code != 413
        refused = send(person, path, **{field: "x" * most})
        assert refused.status_code == 413
        assert f"at most {most} bytes" in refused.text
        assert refused.headers["content-security-policy"]


def test_a_slash_too_many_leads_nowhere(url: str, admin_key: str) -> None:
    with visitor(url, admin_key) as person:
        for path in ("/console/jobs/", "/console/sign-in/"):
            assert person.get(path, headers={"host": "evil.test"}).status_code == 404


def test_pages_are_in_the_language_that_somebody_prefers(url: str, admin_key: str) -> None:
    with visitor(url) as stranger:
        assert "登录" in stranger.get("/console/sign-in", headers={"accept-language": "zh-CN,en;q=0.5"}).text
    with visitor(url, admin_key) as person:
        csrf = csrf_in(person.get("/console/preferences").text)
        person.post("/console/preferences", data={"language": "zh", "csrf": csrf})
        assert "任务" in person.get("/console/jobs").text


def test_a_page_that_does_not_exist_is_told_with_the_requests_id(url: str, admin_key: str) -> None:
    with visitor(url, admin_key) as person:
        answer = person.get("/console/none")
        assert answer.status_code == 404
        assert answer.headers["x-request-id"] in answer.text

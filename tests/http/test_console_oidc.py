"""Signing in by OpenID Connect: who is let in, as whom, and everything that lets nobody in."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from joserfc.jwk import OctKey, RSAKey

from guardfleet.settings.groups import ConsoleSettings
from guardfleet.store.postgres.database import Database
from tests.services.databases import Databases, database_on
from tests.services.fixtures import fleet_settings
from tests.services.identity import CLIENT_ID, CLIENT_SECRET, Provider, identity_provider, path_of
from tests.services.served import served
from tests.services.stored import scalar
from tests.services.visiting import csrf_in


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with identity_provider() as found:
        yield found


@pytest.fixture
def sound(provider: Provider) -> Provider:
    """The provider, telling the truth again."""
    provider.claims, provider.signs_with, provider.algorithm, provider.is_away = {"groups": ["ts-team"]}, None, "RS256", False
    return provider


@pytest.fixture(scope="module")
def database_url(postgres: str, databases: Databases) -> Iterator[str]:
    """A database for all of these tests."""
    name = databases.take()
    yield database_on(postgres, name)
    databases.give_back(name)


@pytest.fixture(scope="module")
def url(database_url: str, rabbitmq: str, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    console = ConsoleSettings.model_validate({
        "public_url": "http://127.0.0.1:1", "oidc_issuer": provider.url, "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET, "oidc_roles": ["ts-team=reviewer", "leads=operator", "nobody=admin@none"],
    })  # fmt: skip
    with served(fleet_settings(database_url, rabbitmq, tmp_path_factory.mktemp("oidc")).but(console=console)) as found:
        yield found


def signs_in(browser: httpx2.Client, *, to: str = "/console/") -> httpx2.Response:
    """Follow a sign-in through the provider; the answer of the last step."""
    begun = browser.get("/console/sign-in/oidc", params={"next": to})
    assert begun.status_code == 303, begun.text
    with httpx2.Client() as elsewhere:
        sent_back = elsewhere.get(begun.headers["location"])
    return browser.get(path_of(sent_back.headers["location"]))


def browser_at(url: str) -> httpx2.Client:
    """A browser without a screen."""
    return httpx2.Client(base_url=url, timeout=60)


def test_a_person_comes_in_with_the_roles_of_their_groups(url: str, sound: Provider, db: Database) -> None:
    sound.claims = {"groups": ["ts-team", "leads", "other"], "name": "Ada"}
    with browser_at(url) as browser:
        assert "Sign in with your organisation" in browser.get("/console/sign-in").text
        came = signs_in(browser, to="/console/review")
        assert (came.status_code, came.headers["location"]) == (303, "/console/review")
        page = browser.get("/console/preferences").text
        assert ("Ada" in page, "oidc:u-1" in page) == (True, True)
        assert browser.get("/console/jobs").status_code == 200
        browser.post("/console/preferences", data={"theme": "dark", "csrf": csrf_in(page)})
        browser.post("/console/sign-out", data={"csrf": csrf_in(page)})
        assert browser.get("/console/jobs").status_code == 303
        signs_in(browser)
        assert 'data-theme="dark"' in browser.get("/console/preferences").text
    with db.session() as connection:
        newest = "select action from audit_event where subject = 'oidc:u-1' and actor_kind = 'person' order by id desc limit 3"
        assert connection.scalars(newest) == ["session.begin", "session.end", "session.begin"]


@pytest.mark.parametrize("groups", [[], ["other"], "other", None, [7], {"ts-team": 1}])
def test_somebody_without_a_role_stays_outside(url: str, sound: Provider, groups: object) -> None:
    sound.claims = {"groups": groups}
    with browser_at(url) as browser:
        came = signs_in(browser)
        assert (came.status_code, "grants you no role" in came.text) == (403, True)
        assert browser.get("/console/review").status_code == 303


@pytest.mark.parametrize(
    "lie",
    [
        {"nonce": "another"}, {"nonce": None}, {"aud": "another"}, {"iss": "http://127.0.0.1:2"}, {"exp": 1_700_000_000},
        {"aud": ["another", "others"]}, {"azp": "another", "aud": [CLIENT_ID, "another"]}, {"exp": None}, {"sub": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_that_says_another_thing_lets_nobody_in(url: str, sound: Provider, lie: dict[str, Any]) -> None:
    sound.claims |= lie
    with browser_at(url) as browser:
        assert signs_in(browser).status_code == 403
        assert browser.get("/console/review").status_code == 303


@pytest.mark.parametrize(
    "subject",
    ["", " ", "\0", "u\x001", "u\n1", "\u202eu", "u" * 256, 7, True, ["u-1"], {"u": 1}],
    ids=["empty", "blank", "NUL", "with NUL", "two lines", "turned round", "too long", "number", "bool", "list", "object"],
)
def test_nobody_comes_in_as_a_subject_that_is_none(url: str, sound: Provider, db: Database, subject: object) -> None:
    sound.claims |= {"sub": subject}
    before = scalar(db, "select count(*) from console_session")
    with browser_at(url) as browser:
        came = signs_in(browser)
        assert (came.status_code, came.text.count('role="alert"')) == (403, 1)
        assert "vouches for nobody by name" in came.text or not isinstance(subject, str)
        assert browser.get("/console/review").status_code == 303
    assert scalar(db, "select count(*) from console_session") == before


def test_a_long_subject_is_the_same_person_each_time(url: str, sound: Provider, db: Database) -> None:
    sound.claims |= {"sub": "u" * 255}
    with browser_at(url) as browser, browser_at(url) as another:
        assert [signs_in(one).status_code for one in (browser, another)] == [303, 303]
    assert len(set(scalar(db, "select array_agg(who) from (select who from console_session order by id desc limit 2) newest"))) == 1


@pytest.mark.parametrize("name", ["A\0da", "\u202eadA", "", " ", 7, ["Ada"]], ids=ascii)
def test_a_name_that_cannot_be_shown_is_not(url: str, sound: Provider, name: object) -> None:
    sound.claims |= {"name": name, "email": "ada@example.com"}
    with browser_at(url) as browser:
        assert signs_in(browser).status_code == 303
        assert "ada@example.com" in browser.get("/console/preferences").text


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS256", RSAKey.generate_key(2048)), ("HS256", OctKey.import_key(CLIENT_SECRET * 4))],
    ids=["another's key", "the client's secret"],
)
def test_a_token_of_another_signer_lets_nobody_in(url: str, sound: Provider, algorithm: str, key: object) -> None:
    sound.algorithm, sound.signs_with = algorithm, key
    with browser_at(url) as browser:
        assert signs_in(browser).status_code == 403


def test_a_sign_in_ends_in_the_browser_where_it_began(url: str, sound: Provider) -> None:
    with browser_at(url) as browser, browser_at(url) as other, httpx2.Client() as elsewhere:
        begun = browser.get("/console/sign-in/oidc")
        back = path_of(elsewhere.get(begun.headers["location"]).headers["location"])
        assert other.get(back).status_code == 403
        other.get("/console/sign-in/oidc")
        assert other.get(back).status_code == 403
        assert browser.get(back.replace("state=", "state=x")).status_code == 403
        assert browser.get(back).status_code == 303
        assert browser.get(back).status_code == 403


def test_a_provider_that_is_away_is_told_calmly(url: str, sound: Provider) -> None:
    sound.is_away = True
    with browser_at(url) as browser:
        answer = browser.get("/console/sign-in/oidc")
        assert answer.status_code == 503
        assert "try again" in answer.text

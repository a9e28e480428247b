"""What is refused below /console before a page of it is reached: an error page of the console all the same, kept to itself."""

import re

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.visiting import key_of, visitor
from tests.services.wire import answer, get, opened

pytestmark = [with_broker("redis")]

KEPT = (
    b"content-security-policy: default-src 'none'", b"cache-control: no-store", b"x-content-type-options: nosniff",
    b"referrer-policy: same-origin", b"x-frame-options: deny", b"cross-origin-opener-policy: same-origin",
    b"content-type: text/html",
)  # fmt: skip
CLOSE = "Connection: close"


def wrong_with(said: bytes, status: int) -> list[bytes]:
    """What an answer lacks of an error page of the console."""
    head, _, page = said.lower().partition(b"\r\n\r\n")
    assert head.startswith(b"http/1.1 %d " % status), head
    lacking = [one for one in KEPT if one not in head]
    return lacking + [one for one in (b"<!doctype html>", b'role="alert"') if one not in page]


def told(url: str, said: bytes) -> bytes:
    """The last answer on a connection."""
    host, port = url.removeprefix("http://").split(":")
    found = answer(opened((host, int(port)), said))
    return found[[at.start() for at in re.finditer(rb"HTTP/1\.1 \d", found)][-1] :]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (get("/console/jobs%00", CLOSE), 400),
        (get("/console/jobs?name=%00", CLOSE), 400),
        (get("/console/jobs", "Authorization: a", "Authorization: b", CLOSE), 400),
        (get("/console/static/none", "Content-Type: a", "Content-Type: b", CLOSE), 400),
        (get("/console/sign-in", "Content-Length: 3", "Transfer-Encoding: chunked").replace(b"GET", b"POST") + b"0\r\n\r\n", 400),
        (get("/console", "Content-Length: 0", CLOSE).replace(b"GET", b"POST"), 405),
        (get("/console/sign-in", CLOSE).replace(b"GET", b"BREW"), 405),
        (get("/console/none", CLOSE), 404),
        (get("/console/static/none", CLOSE), 404),
        (get("/console/jobs", "Host: y"), 400),
        (get("/%63onsole/jobs", "Host: y"), 400),
        (get("/console", "Host: y"), 400),
        (get("/console/jobs", "no colon"), 400),
        (get("/console/\xe9"), 400),
        (get("/console/a b"), 400),
        (get("/console/" + "x" * 17_000).partition(b" HTTP")[0], 400),
        (get("/livez") + get("/console/jobs", "Host: y"), 400),
    ],
    ids=[
        "NUL in a path", "NUL in a query", "two keys", "two types", "two lengths", "method of the place", "method of a page",
        "no page", "no file", "two hosts", "two hosts, disguised", "two hosts of the place", "a header without colon",
        "a letter as it is", "a blank", "too long", "behind another request",
    ],
)  # fmt: skip
def test_a_refusal_is_a_page_of_the_console(url: str, said: bytes, status: int) -> None:
    assert not wrong_with(told(url, said), status)


def test_a_socket_is_answered_as_a_page_is(url: str) -> None:
    assert b"text/html" in told(url, get("/console/sign-in", "Upgrade: websocket", "Connection: upgrade, close"))


def test_elsewhere_a_refusal_stays_a_problem(url: str) -> None:
    for said in (get("/v1/batches", "Host: y"), get("/consoles%00", CLOSE), get("/console/jobs") + get("/v1/batches", "Host: y")):
        assert b"application/problem+json" in told(url, said)


def test_a_refusal_is_in_the_browsers_language_and_fits_its_place(url: str, db: Database, keyring: Keyring) -> None:
    with visitor(url, key_of(db, keyring, "admin")) as person:
        page = person.get("/console/jobs%00", headers={"accept-language": "zh"})
        assert ('lang="zh"' in page.text, page.headers["x-request-id"] in page.text) == (True, True)
        part = person.get("/console/jobs?name=%00", headers={"hx-request": "true"})
        assert (part.status_code, part.headers["hx-retarget"], "<html" in part.text) == (400, "#notice", False)
        head = person.head("/console/jobs%00")
        assert (head.status_code, head.headers["cache-control"], head.content) == (400, "no-store", b"")


def test_a_defect_before_the_pages_is_told_on_a_page(url: str, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("api.console.application.make_console", broken)
    found = told(url, get("/console/jobs", CLOSE))
    assert not wrong_with(found, 500)
    assert b"ZeroDivision" not in found

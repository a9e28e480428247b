"""Somebody at the console without a screen: signed in, sending the forms of its pages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from guardfleet.domain.scopes import ROLES
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database

HOSTILE = '<script>x</script>"\u202e'


@contextmanager
def visitor(url: str, key: str | None = None) -> Iterator[httpx2.Client]:
    """A browser without a screen; signed in, if a key is given."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        if key is not None:
            answer = client.post("/console/sign-in", data={"key": key})
            assert answer.status_code == 303, answer.text
        yield client


def key_of(db: Database, keyring: Keyring, role: str, *, tenant: str = "default", name: str | None = None) -> str:
    """A new key of this role."""
    return keys.create(db, keyring, name=name or f"{role} of {tenant}", tenant=tenant, scopes=ROLES[role])


def send(person: httpx2.Client, path: str, **fields: object) -> httpx2.Response:
    """Send a form, as a page of the session would."""
    csrf = csrf_in(person.get("/console/preferences").text)
    return person.post(f"/console{path}", data={"csrf": csrf, **fields})


def speak_chinese(person: httpx2.Client) -> None:
    """Prefer the other language."""
    assert send(person, "/preferences", language="zh").status_code == 303


def hidden(page: str, name: str) -> str:
    """The value of a page's hidden field."""
    return re.search(rf'name="{name}" value="([^"]*)"', page).group(1)


def csrf_in(page: str) -> str:
    """The token of a page's forms."""
    return hidden(page, "csrf")

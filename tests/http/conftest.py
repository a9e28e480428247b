"""The API over a socket, for the tests of this room that ask for it."""

from collections.abc import Iterator

import pytest

from guardfleet.settings import Settings
from tests.services.answers import check_all
from tests.services.served import served


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """The address of the application, served for the test."""
    with served(settings) as found:
        yield found


@pytest.fixture(autouse=True)
def _as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every answer to the OpenAPI."""
    check_all(monkeypatch)

"""Servers and shared data for the tests: skipped with a reason where they are missing, a failure in CI.

Shared fixtures are loaded only if their packages are installed, so that `tests/gpu` runs with torch, transformers and pytest alone.
A test that needs a fixture of packages that are missing is an error that names it: it is never skipped for that.
"""

import importlib.util
import os
import pathlib
import signal
import sys

import pytest

SHARED = pathlib.Path(os.environ.get("SHARED_DATA", pathlib.Path(__file__).parents[2] / "shared"))
IN_CI = bool(os.environ.get("CI"))
SERVERS = ("alembic", "cryptography", "kombu", "orjson", "psycopg", "pydantic_settings", "redis", "sqlalchemy")
NEEDS = {  # of each plugin, the packages that it imports
    "tests.services.markers": (),
    "tests.services.examples": ("hypothesis",),
    "tests.services.models": ("torch", "transformers"),
    "tests.services.classifiers": ("torch", "transformers"),
    "tests.services.fixtures": SERVERS,
    "tests.services.servers": SERVERS,
}
LACKING = {
    plugin: found
    for plugin, needs in NEEDS.items()
    if (found := [name for name in needs if sys.modules.get(name) is None and importlib.util.find_spec(name) is None])
}

pytest_plugins = [plugin for plugin in NEEDS if plugin not in LACKING]


def pytest_report_header() -> list[str]:
    """What no test can use here."""
    return [f"without {plugin}: {', '.join(packages)} not installed" for plugin, packages in LACKING.items()]


def pytest_configure() -> None:
    """Take SIGINT back where a shell in the background has it ignored: processes that tests interrupt would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def missing(reason: str) -> None:
    """Skip here, fail in CI."""
    if IN_CI:
        pytest.fail(f"CI has to have this: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real text and of the real tokenizer, beside the checkout."""
    if not SHARED.is_dir():
        missing(f"no shared data at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def _no_stray_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("GUARDFLEET_")]:
        monkeypatch.delenv(key)

"""Servers and shared data for the tests: skipped with a reason where they are missing, a failure in CI."""

import os
import pathlib

import pytest
from hypothesis import settings

SHARED = pathlib.Path(os.environ.get("SHARED_DATA", pathlib.Path(__file__).parents[2] / "shared"))
IN_CI = bool(os.environ.get("CI"))

settings.register_profile("guardfleet", deadline=None)  # how long an example takes says what else the machine is doing
settings.load_profile("guardfleet")

pytest_plugins = ["tests.services.fixtures", "tests.services.models"]


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

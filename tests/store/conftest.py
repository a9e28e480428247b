"""Engines in the test's own process."""

from collections.abc import Iterator

import pytest

from worker.engine.engine import BatchingEngine


@pytest.fixture
def engines() -> Iterator[list[BatchingEngine]]:
    """Those that the test starts: it adds them, and they end with it."""
    made: list[BatchingEngine] = []
    yield made
    for engine in made:
        engine.stop()

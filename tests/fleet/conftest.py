"""What several fleets are given their work by."""

from collections.abc import Iterator

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings


@pytest.fixture
def producer(settings: Settings) -> Iterator[DirectClient]:
    """A client that cuts small shards, so that a small job has several."""
    made = DirectClient.connect(settings.but(shard_texts=50))
    yield made
    made.db.close()

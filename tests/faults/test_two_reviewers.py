"""Two reviewers at once over the console's pages, one of them killed: no text twice, none lost."""

import pathlib
import socket

from benchmarks.two_reviewers import is_fine
from guardfleet.settings import Settings
from tests.services.fixtures import with_broker
from tests.services.two_reviewers import experiment

pytestmark = [with_broker("redis")]
N = 60


def test_no_text_is_decided_twice_and_none_is_lost(settings: Settings, tmp_path: pathlib.Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen = experiment(settings.but(api_port=port), tmp_path, texts=N)
    assert is_fine(seen, N), seen
    assert len(seen.by_person) == 3

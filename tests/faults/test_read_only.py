"""PostgreSQL turns read-only in the middle of a job: every process waits, none ends, and the work resumes by itself."""

import pathlib
from dataclasses import asdict

from tests.services.fixtures import fleet_settings
from tests.services.read_only import weather
from tests.services.receiver import Receiver, receiver
from tests.services.servers import OwnPostgres

__all__ = ["receiver"]


def test_a_read_only_database_is_waited_out(redis_broker: str, tmp_path: pathlib.Path, receiver: Receiver) -> None:
    server = OwnPostgres(tmp_path)
    try:
        server.start()
        settings = fleet_settings(server.url, redis_broker, tmp_path, instant_ms_per_batch=50.0)
        seen = weather(settings, server, receiver, tmp_path, texts=2000, seconds=4)
    finally:
        server.stop()
    assert (seen.lost, seen.double, seen.errors, seen.webhooks) == (0, 0, 0, 1), asdict(seen)
    assert seen.ended == []
    assert set(seen.writes) == {"503 retry-after"}
    assert set(seen.ready) == {"503"}
    assert seen.canaries == []

"""PostgreSQL's disk fills up in the middle of a job; once there is room again, the job continues and no text is lost."""

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.states import JobState
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished, progressed
from tests.services.patience import patience
from tests.services.servers import OwnPostgres

SIZE_MIB = 200
ROOM = 256 << 10  # what is left: not enough for the next page of a table and the WAL of a few shards


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=755", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_waited_out(small_disk: pathlib.Path, redis_broker: str, tmp_path: pathlib.Path) -> None:
    server = OwnPostgres(small_disk)
    settings = fleet_settings(server.url, redis_broker, tmp_path, instant_ms_per_batch=50.0)
    ballast = small_disk / "ballast"
    server.start()
    migrate.upgrade(made := Database(server.url, pool_size=1))
    made.close()
    producer = DirectClient.connect(settings.but(shard_texts=25))
    try:
        with fleet(settings, tmp_path, ("dispatcher",), ("worker",)) as (_, worker):
            job = producer.submit([f"text {i}" for i in range(4000)]).job
            progressed(producer, job, 200)
            fill(ballast)
            worker.until_says("shard_postponed", timeout_s=patience(90))
            ballast.unlink()
            if not server.is_running():
                server.start()
            done = finished(producer, job, timeout_s=patience(120))
            assert (done.state, done.error) == (JobState.COMPLETED, 0)
            assert_exactly_once(producer, done)
    finally:
        server.stop()
        producer.db.close()


def fill(ballast: pathlib.Path) -> None:
    """Take all the room there is but `ROOM`."""
    import shutil

    with ballast.open("wb", buffering=0) as file:
        while (free := shutil.disk_usage(ballast.parent).free - ROOM) > 0:
            file.write(b"\0" * min(free, 1 << 20))
    until(lambda: shutil.disk_usage(ballast.parent).free <= ROOM, what="a full disk")

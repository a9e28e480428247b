"""Old and new processes side by side through a migration: nothing stops, nothing is lost."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from guardfleet.broker.celery_app import MODERATE, Publisher, make_app
from guardfleet.client.direct import DirectClient
from guardfleet.errors import ConfigurationError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.settings.names import PLACES
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY, fleet_settings
from tests.services.fleet import Process, until
from tests.services.outcome import assert_exactly_once, finished, progressed

ROOT = pathlib.Path(__file__).parents[2]
OLD, OLD_REVISION = "210e1a8", "0006"  # the last commit before revision 0007


@pytest.fixture
def old_code(tmp_path: pathlib.Path) -> pathlib.Path:
    """The checkout as it was."""
    folder = tmp_path / "old"
    folder.mkdir()
    archive = tmp_path / "old.tar"
    made = subprocess.run(["git", "archive", "-o", str(archive), OLD], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"commit {OLD} is not in this clone")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _as_json(settings: Settings) -> dict[str, str]:
    """The settings as the old code reads them: lists as JSON."""
    out = {key: value for key, value in settings.as_environment().items() if "__" not in key and "TUNING" not in key}
    for name, (group, leaf) in PLACES.items():
        inside = getattr(settings, group)
        if leaf in inside.model_fields_set:
            value = getattr(inside, leaf)
            out[f"GUARDFLEET_{name.upper()}"] = json.dumps(list(value)) if isinstance(value, tuple) else str(value)
    return out


class OldProcess(Process):
    """One process of the old code: `python -m` looks in the working folder first."""

    def __init__(self, code: pathlib.Path, settings: Settings, *args: str, log: pathlib.Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "guardfleet", *args],
                cwd=code,
                env=os.environ | _as_json(settings) | {"PYTHONPATH": str(code)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def says(self, slug: str) -> bool:
        """Whether the slug is in its log, under the name that it had."""
        return f'"event": "{slug}"' in self.log.read_text(errors="replace")


def test_a_fleet_is_upgraded_while_it_works(
    old_code: pathlib.Path, empty_database_url: str, rabbitmq: str, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(empty_database_url, rabbitmq, tmp_path, instant_ms_per_batch=150.0)
    upgraded = OldProcess(old_code, settings, "db", "upgrade", log=tmp_path / "upgrade.log")
    assert upgraded.wait() == 0
    db = Database(empty_database_url)
    assert migrate.current(db) == OLD_REVISION
    old = [OldProcess(old_code, settings, name, log=tmp_path / f"old-{name}.log") for name in ("worker", "dispatcher")]
    new: list[Process] = []
    producer = DirectClient(db, Keyring(SECRET_KEY), settings.but(shard_texts=20))
    try:
        old[0].until_says("worker_ready")
        migrate.upgrade(db)  # while the old ones run
        new += [Process(settings, name, log=tmp_path / f"new-{name}.log") for name in ("worker", "dispatcher")]
        new[0].until_says("worker_ready")
        noted = {"metadata": {"n": float("nan")}}  # rows with notes, which the old worker knows nothing of
        job = producer.submit([{"text": f"text {i}", **(noted if i % 7 == 0 else {})} for i in range(2000)]).job
        progressed(producer, job, 200)
        until(lambda: new[0].says("shard_finished") and old[0].says("shard_finished"), what="both versions at work")
        for process in old:
            process.process.terminate()
            assert process.wait() == 0
        assert_exactly_once(producer, finished(producer, job))
    finally:
        for process in (*old, *new):
            process.stop()
        db.close()


def test_code_accepts_a_newer_schema_until_that_is_no_longer_good_for_it(db: Database) -> None:
    with db.begin() as connection:
        connection.execute("update alembic_version set version_num = '9998'")
    migrate.require_head(db)
    with db.begin() as connection:
        connection.execute("update schema_support set oldest = '9998'")
    with pytest.raises(ConfigurationError, match="too old for it: install a newer version"):
        migrate.require_head(db)


def test_a_message_of_a_newer_version_is_handed_back(rabbitmq: str, database_url: str, tmp_path: pathlib.Path) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    publisher = Publisher(make_app(settings, "test"), settings)
    worker = Process(settings, "worker", log=tmp_path / "worker.log")
    try:
        worker.until_says("worker_ready")
        publisher.publish(MODERATE, publisher.queues.lanes[0], [{"v": 99, "job": 1, "shard": 0, "what": "else"}])
        worker.until_says("shard_message_returned")
        worker.process.terminate()
        assert worker.wait() == 0
        until(lambda: publisher.depth(publisher.queues.lanes[0]) == 1, what="the message back in its queue")
        assert publisher.depth(publisher.queues.dead) == 0
    finally:
        worker.stop()
        publisher.close()

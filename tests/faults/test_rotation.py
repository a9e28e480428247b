"""The secret key is rotated while a fleet works: no text is lost or judged twice, and afterwards only the new key is needed."""

import os
import pathlib
import subprocess
import sys
import threading

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.errors import ConfigurationError, RejectedError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings
from guardfleet.store import files, installation, keys, rotation
from guardfleet.store.events import endpoints
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from guardfleet.verdicts.cursors import pack, unpack
from guardfleet.verdicts.page import Cursor
from tests.services.fixtures import SECRET_KEY, with_broker
from tests.services.fleet import Process, until
from tests.services.outcome import assert_exactly_once, finished, progressed
from tests.services.patience import patience
from tests.services.stored import scalar, submit, took

NEW = new_secret_key()


def with_keys(settings: Settings, secret: str, previous: str | None = None) -> Settings:
    from pydantic import SecretStr

    values = {"secret_key": SecretStr(secret), "previous_secret_key": SecretStr(previous) if previous else None}
    return settings.but(**values)


def rotate(settings: Settings, ring: Keyring) -> None:
    """As its operator does it."""
    rotated = subprocess.run(
        [sys.executable, "-P", "-m", "guardfleet", "keys", "rotate-secret"],
        env=os.environ | settings.as_environment(),
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )
    assert rotated.returncode == 0, rotated.stderr
    assert f"{ring.key_id} is the installation's secret key" in rotated.stderr
    assert "1 API keys have not been used since" in rotated.stderr


def secrets_under(ring: Keyring, old_ring: Keyring, db: Database) -> list[bytes]:
    """The sealed secrets, once every row is seen to be under the new key and its two data keys are opened by no other."""
    assert scalar(db, "select count(*) from installation_key") == 1
    for table in ("job", "file", "endpoint", "api_key"):
        assert scalar(db, f"select count(*) from {table} where key_id is distinct from '{ring.key_id}'") == 0, table
    with db.begin() as connection:
        wrapped = [bytes(row[0]) for row in connection.execute("select data_key from job union all select data_key from file")]
        sealed = [bytes(row[0]) for row in connection.execute("select secret from endpoint")]
    assert len(wrapped) == 2
    for data_key in wrapped:
        ring.rewrap(data_key)
        with pytest.raises(ConfigurationError, match="cannot be decrypted"):
            old_ring.rewrap(data_key)
    return sealed


@with_broker("redis")
def test_the_key_is_rotated_under_a_working_fleet(settings: Settings, db: Database, tmp_path: pathlib.Path) -> None:
    settings = settings.but(instant_ms_per_batch=100.0, shard_texts=20, concurrency=1, log_level="info")
    both, new = with_keys(settings, NEW, SECRET_KEY), with_keys(settings, NEW)
    old_ring, ring = Keyring(SECRET_KEY), Keyring(NEW)
    producer = DirectClient(db, Keyring(SECRET_KEY), settings)
    installation.require_key(db, producer.keyring)
    job = producer.submit(
        [f"text {i}" for i in range(2000)],
        JobOptions(callback_url="https://receiver.example/"),
        SubmitOptions(callback_secret="whsec_" + "a" * 32),
    ).job
    hook, secret = endpoints.create(
        db, old_ring, tenant_id=1, name="r", url="https://receiver.example/", kinds=("batch.completed",)
    )
    api_key = keys.create(db, old_ring, name="k")
    file = files.create(db, old_ring, tenant_id=1, filename="f")
    running = [
        Process(both, "dispatcher", log=tmp_path / "dispatcher.log"),
        Process(both, "worker", log=tmp_path / "both.log"),
        Process(settings, "worker", log=tmp_path / "forgotten.log"),  # with the old key alone, against the procedure
    ]
    try:
        for process in running[1:]:
            process.until_says("worker_ready")
        progressed(producer, job, 100)
        rotate(both, ring)
        assert running[2].wait() == 70, "the forgotten one ended by itself"
        assert keys.authenticate(db, Keyring(NEW, SECRET_KEY), api_key) is not None
        refused = Process(settings, "worker", log=tmp_path / "refused.log")
        running.append(refused)
        assert refused.wait() == 2
        assert "this installation's secret key is" in refused.log.read_text()
        running.append(Process(new, "worker", log=tmp_path / "new.log"))
        done = finished(producer, job, timeout_s=patience(120))
    finally:
        for process in running:
            process.stop()
    assert_exactly_once(producer, done)
    assert done.error == 0
    assert scalar(db, f"select max(failures) from shard where job_id = {job.id}") == 0
    sealed = secrets_under(ring, old_ring, db)
    assert {ring.decrypt_secret(one) for one in sealed} == {secret, "whsec_" + "a" * 32}
    assert keys.authenticate(db, ring, api_key) is not None
    assert (hook.name, file.filename) == ("r", "f")


def test_a_rotation_that_was_cut_off_goes_on_and_until_then_needs_both_keys(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submit(db, keyring, 4) for _ in range(7)]
    installation.require_key(db, keyring)
    monkeypatch.setattr(rotation, "PIECE", 2)
    ring = Keyring(NEW, SECRET_KEY)

    class PulledError(Exception):
        pass

    def pull(n: int) -> None:
        if n >= 4:
            raise PulledError

    with pytest.raises(PulledError):
        rotation.rotate(db, ring, pull)
    assert scalar(db, f"select count(*) from job where key_id = '{keyring.key_id}'") == 3
    with pytest.raises(ConfigurationError, match=f"the rotation from secret key {keyring.key_id} is not finished"):
        installation.require_key(db, Keyring(NEW))
    for job in jobs:
        assert [row.content for row in leases.load(db, Keyring(NEW, SECRET_KEY), took(db, job, 0))] == [
            f"text {i}" for i in range(4)
        ]
    done = rotation.rotate(db, Keyring(NEW, SECRET_KEY))
    assert (done.data_keys, done.unopened) == (3, 0)
    installation.require_key(db, Keyring(NEW))
    assert rotation.rotate(db, Keyring(NEW)).data_keys == 0
    with pytest.raises(ConfigurationError, match="this installation's secret key is"):
        installation.require_key(db, keyring)


def test_two_rotations_take_no_turns_but_the_second_is_refused(db: Database, keyring: Keyring) -> None:
    submit(db, keyring, 4)
    inside, leave = threading.Event(), threading.Event()

    def wait(n: int) -> None:
        inside.set()
        assert leave.wait(patience(30))

    first = threading.Thread(target=rotation.rotate, args=(db, Keyring(NEW, SECRET_KEY), wait))
    first.start()
    try:
        assert inside.wait(patience(30))
        with pytest.raises(RejectedError, match="another"):
            rotation.rotate(db, Keyring(NEW, SECRET_KEY))
    finally:
        leave.set()
        first.join(patience(30))


def test_what_a_third_key_sealed_is_counted_and_stops_nothing(db: Database, keyring: Keyring) -> None:
    submit(db, keyring, 4)
    submit(db, Keyring(new_secret_key()), 4)
    with db.begin() as connection:
        connection.execute("delete from installation_key")
    installation.require_key(db, keyring)
    done = rotation.rotate(db, Keyring(NEW, SECRET_KEY))
    assert (done.data_keys, done.unopened) == (1, 1)


def test_a_writer_follows_the_pin_in_its_own_transaction(db: Database, keyring: Keyring) -> None:
    installation.require_key(db, keyring)
    ring, stale = Keyring(NEW, SECRET_KEY), Keyring(SECRET_KEY)
    writer = Keyring(NEW, SECRET_KEY)
    installation.require_key(db, writer)
    assert writer.key_id == keyring.key_id, "until the pin has moved, what is written is under the old key"
    rotation.rotate(db, ring)
    submit(db, writer, 4)
    assert scalar(db, "select key_id from job") == ring.key_id
    with pytest.raises(ConfigurationError, match="this installation's secret key is"):
        submit(db, stale, 4)
    assert scalar(db, "select count(*) from job") == 1


def test_both_keys_open_and_sign_while_both_are_set() -> None:
    old, both, new = Keyring(SECRET_KEY), Keyring(NEW, SECRET_KEY), Keyring(NEW)
    data_key = old.new_data_key()
    blob = old.encrypt_rows(data_key, [PayloadRow("1", "x")], job_id=1, shard_no=0)
    assert both.decrypt_rows(data_key, blob, job_id=1, shard_no=0) == new.decrypt_rows(
        both.rewrap(data_key), blob, job_id=1, shard_no=0
    )
    assert both.decrypt_secret(old.encrypt_secret("s")) == "s"
    signed = pack(Cursor(3, 4), job_id=1, key=old.cursor_keys[0])
    assert unpack(signed, job_id=1, keys=both.cursor_keys) == Cursor(3, 4)
    with pytest.raises(RejectedError):
        unpack(signed, job_id=1, keys=new.cursor_keys)
    assert set(both.api_key_digests("k")) == {*old.api_key_digests("k"), *new.api_key_digests("k")}


def test_nothing_is_given_up_by_a_dispatcher_that_lacks_the_key(db: Database, keyring: Keyring) -> None:
    from guardfleet.store.shards.leases import Limits
    from worker.dispatch.poison import give_up

    job = submit(db, keyring, 4)
    installation.require_key(db, keyring)
    rotation.rotate(db, Keyring(NEW, SECRET_KEY))
    with db.begin() as connection:
        connection.execute("update shard set failures = 9")
    with pytest.raises(ConfigurationError):
        give_up(db, keyring, (job.id, 0), Limits(6, 5), lease_s=5)
    assert scalar(db, "select count(*) from verdict") == 0
    assert until(lambda: scalar(db, "select sum(done) from job") == 0)

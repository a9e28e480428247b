"""A process with a secret key other than the installation's takes in nothing and judges nothing."""

import pathlib
import subprocess

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.client.direct import DirectClient
from guardfleet.errors import ConfigurationError
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import installation, keys, rotation
from guardfleet.store.postgres.database import Database
from tests.fleet.test_commands import data_dir
from tests.services.commands import command, said
from tests.services.fixtures import SECRET_KEY, with_broker
from tests.services.stored import scalar, submit

__all__ = ["data_dir"]
LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": "x"}}\n'
COMMANDS = [
    ("worker",), ("worker", "--webhooks"), ("worker", "--devices", "cpu"), ("dispatcher",), ("api",), ("doctor",),
    ("db", "upgrade"), ("submit", "IN"), ("scan", "IN", "-o", "OUT"), ("up",), ("keys", "create", "x"),
]  # fmt: skip


def guardfleet(settings: Settings, folder: pathlib.Path, *args: str, **changed: str) -> subprocess.CompletedProcess[str]:
    source = folder / "in.jsonl"
    source.write_text('{"id": 1, "text": "x"}\n')
    named = {"IN": str(source), "OUT": str(folder / "out.jsonl")}
    run = command if "--devices" in args else said  # which starts a process that says it
    return run(settings, *(named.get(arg, arg) for arg in args), **changed)


@with_broker("redis")
@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_every_process_and_command_refuses_another_key(
    settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path, args: tuple[str, ...]
) -> None:
    installation.require_key(db, keyring)
    other = new_secret_key()
    done = guardfleet(settings, tmp_path, *args, secret_key=other)
    assert done.returncode == 2, done.stderr
    told = (done.stdout + done.stderr).replace("\n", " ")
    assert f"this installation's secret key is {keyring.key_id}" in told
    assert Keyring(other).key_id in told
    assert other not in told
    assert "Traceback" not in told
    assert scalar(db, "select count(*) from job") == 0
    assert scalar(db, "select count(*) from api_key") == 0


@with_broker("redis")
def test_the_producer_in_an_application_refuses_another_key(settings: Settings, db: Database, keyring: Keyring) -> None:
    installation.require_key(db, keyring)
    DirectClient.connect(settings).db.close()
    other = settings.but(secret_key=type(settings.secret_key)(new_secret_key()))  # type: ignore[misc]
    with pytest.raises(ConfigurationError, match="this installation's secret key is"):
        DirectClient.connect(other)


@with_broker("redis")
def test_db_upgrade_pins_the_key_that_it_is_run_with(
    settings: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    unpinned = guardfleet(settings, tmp_path, "doctor")
    assert "becomes the installation's" in unpinned.stdout, unpinned.stderr
    assert scalar(db, "select count(*) from installation_key") == 0
    assert guardfleet(settings, tmp_path, "db", "upgrade").returncode == 0
    assert scalar(db, "select key_id from installation_key where is_current") == keyring.key_id
    assert f"key {keyring.key_id} is the installation's" in guardfleet(settings, tmp_path, "doctor").stdout


def test_an_installation_of_before_is_pinned_to_a_key_of_its_jobs(db: Database, keyring: Keyring) -> None:
    submit(db, keyring, 4)
    with db.begin() as connection:
        connection.execute("delete from installation_key")
    other = Keyring(new_secret_key())
    for look in (installation.require_key, installation.is_pinned):
        with pytest.raises(ConfigurationError, match=f"secret key is {keyring.key_id}, and the one set here is {other.key_id}"):
            look(db, other)
    assert scalar(db, "select count(*) from installation_key") == 0
    assert installation.is_pinned(db, keyring)
    installation.require_key(db, keyring)
    with pytest.raises(ConfigurationError):
        installation.require_key(db, other)


def test_an_api_that_was_left_with_the_old_key_says_so_and_is_not_ready(database_url: str, db: Database, keyring: Keyring) -> None:
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY)
    installation.require_key(db, keyring)
    key, moved = (keys.create(db, keyring, name=name) for name in ("k", "moved"))
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as client:
        assert client.get("/v1/files").status_code == 200
        file = client.post("/v1/files", files={"file": ("x.jsonl", LINE)}, data={"purpose": "batch"}).json()["id"]
        assert client.get("/readyz").status_code == 200
        ring = Keyring(new_secret_key(), SECRET_KEY)
        rotation.rotate(db, ring)
        assert keys.authenticate(db, ring, moved) is not None  # its digest is under the new key now
        asked = {"input_file_id": file, "endpoint": "/v1/moderations", "completion_window": "24h"}
        for answer in (
            client.post("/v1/moderations", json={"input": "x"}),
            client.post("/v1/batches", content=LINE, headers={"content-type": "application/jsonl"}),
            client.post("/v1/batches", json=asked),
            client.post("/v1/files", files={"file": ("y.jsonl", LINE)}, data={"purpose": "batch"}),
            client.get(f"/v1/files/{file}/content"),
            client.get("/v1/files", headers={"authorization": f"Bearer {moved}"}),
        ):
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "5"), answer.text
            assert "its operator must restart it" in answer.json()["detail"]
            assert keyring.key_id not in answer.text
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
    assert "secret key is" in (installation.wrong(db, keyring) or "")
    assert scalar(db, "select count(*) from job") == 0


def test_an_embedded_stack_refuses_another_key_than_its_folder_s(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 1, "text": "x"}\n')
    assert command(data_dir, "scan", str(source), "-o", str(tmp_path / "o.jsonl"), engine="instant").returncode == 0
    for args in (("scan", str(source), "--again"), ("up",), ("keys", "create", "x")):
        done = said(data_dir, *args, engine="instant", secret_key=SECRET_KEY)
        assert done.returncode == 2, (args, done.stderr)
        assert "this installation's secret key is" in done.stderr

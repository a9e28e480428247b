"""What remains when a parent is killed: its processes end by themselves, and the next user of the folder ends its servers."""

import os
import pathlib
import signal
import subprocess
import sys

from guardfleet.embedded.ownership import Owner
from guardfleet.embedded.postgres import EmbeddedPostgres
from guardfleet.embedded.valkey import EmbeddedValkey, answers
from guardfleet.security.encryption import new_secret_key
from tests.fleet.test_commands import data_dir
from tests.services.fleet import until
from tests.services.patience import patience

__all__ = ["data_dir"]
PARENT = """
import sys
import time
from guardfleet.process.supervisor import Child
child = Child("api", ["api"], {}, None)
child.start()
print(child.pid, file=sys.stderr, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_ends_with_its_parent_however_that_ended() -> None:
    away = {"GUARDFLEET_DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "GUARDFLEET_SECRET_KEY": new_secret_key()}  # waited for
    call = [sys.executable, "-c", PARENT]
    with subprocess.Popen(call, env=os.environ | away, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stderr is not None
            child = int(parent.stderr.readline())
            assert is_alive(child)
        finally:
            parent.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(child), timeout_s=patience(20), what="the end of the child")


def test_servers_of_a_killed_parent_are_ended_by_the_next(data_dir: pathlib.Path) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    owner = Owner.here()
    sockets = owner.own(data_dir / "run")
    for kind, name in ((EmbeddedValkey, "valkey"), (EmbeddedPostgres, "postgres")):
        left, anew = (kind(data_dir / name, sockets, owner) for _ in range(2))
        left.start()
        try:
            pid = pid_of(left)
            anew.start()
            assert not is_alive(pid)
            assert anew.is_running()
            assert pid_of(anew) != pid
            if isinstance(anew, EmbeddedValkey):
                assert answers(anew.url), "its socket is there"
        finally:
            anew.stop()
            left.stop()


def pid_of(server: EmbeddedPostgres | EmbeddedValkey) -> int:
    if isinstance(server, EmbeddedPostgres):
        return int(server._pid() or 0)
    assert server._process is not None
    return server._process.pid

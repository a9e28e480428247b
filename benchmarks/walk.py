"""Count the files that a text passes from `POST /v1/batches` to its webhook: modules of ours in which a function runs meanwhile.

    python benchmarks/walk.py [--model demo]

An embedded fleet is asked for a batch of one line. Every process notes which modules run, idle and then from the request to the
webhook; a module counts that runs in the second and not in the first. Prints them by folder, and their number in the last line.
"""

import argparse
import http.client
import http.server
import itertools
import json
import os
import pathlib
import signal
import tempfile
import threading
import time
import urllib.parse
from typing import Self

from guardfleet.cli.bench.site import answers, environment, free_port, start, until
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database

ROOT = pathlib.Path(__file__).resolve().parents[1]
OURS = ("guardfleet", "worker", "producer", "api")
IDLE_S = 6.0  # the dispatcher's slowest round has come by then
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/moderations", "body": {"model": "x", "input": "a text"}}\n'
NOTING = """
import os, signal, sys, threading
seen = set()
def note(frame, event, _):
    seen.add(frame.f_code.co_filename)
def write(*_):
    with open(os.path.join(os.environ["WALK_FOLDER"], f"{os.getpid()}.{write.times}"), "w") as file:
        file.write("\\n".join(seen))
    write.times += 1
    seen.clear()
write.times = 0
if "WALK_FOLDER" in os.environ:
    signal.signal(signal.SIGRTMIN, write)
    threading.setprofile(note)
    sys.setprofile(note)
"""


def main() -> None:
    """Run the fleet, ask it, and print what passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="judge with this model; without it, an engine answers that has none")
    asked = parser.parse_args()
    engine = {"model": asked.model} if asked.model else {"engine": "instant"}
    with tempfile.TemporaryDirectory() as name:
        notes = pathlib.Path(name)
        (notes / "sitecustomize.py").write_text(NOTING)
        os.environ |= {"WALK_FOLDER": name, "PYTHONPATH": name}
        with environment(None, None, webhook_allow_networks=("127.0.0.0/8",), **engine) as settings, Receiver() as receiver:
            port = free_port()
            db = Database(settings.required("database_url"), pool_size=1)
            key = keys.create(db, Keyring.of(settings), name="walk")
            db.close()
            fleet = [
                start(settings, "worker", "worker", says="worker_ready"),
                start(settings, "webhooks", "worker", "--webhooks", says="worker_ready"),
                start(settings, "dispatcher", "dispatcher"),
                start(settings.but(api_port=port), "api", "api"),
            ]
            try:
                until(lambda: answers(port), 60, "the API")
                time.sleep(IDLE_S)
                pids = [process.pid for process in fleet if process.pid]
                mark(pids, notes, 0)  # what starting took
                time.sleep(IDLE_S)
                idle = mark(pids, notes, 1)
                ask(port, key, receiver.url)
                if not receiver.called.wait(60):
                    raise SystemExit("the webhook did not come within 60 s")
                passed = mark(pids, notes, 2)
            finally:
                for process in fleet:
                    process.stop()
    if not passed:
        raise SystemExit(f"no module of {ROOT} ran: install this checkout first")
    found = sorted(map(pathlib.Path, passed - idle))
    for folder, files in itertools.groupby(found, key=lambda file: file.parent):
        names = [file.stem for file in files]
        print(f"{len(names):3}  {folder}: {', '.join(names)}")
    print(json.dumps({"files": len(found), "also_idle": len(passed & idle)}))


class Receiver:
    """A webhook's receiver that says when it was called."""

    def __init__(self) -> None:
        self.called = called = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take a delivery."""
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                called.set()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def ask(port: int, key: str, url: str) -> None:
    """Send a batch of one line with a callback."""
    query = urllib.parse.urlencode({"callback_url": url})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/jsonl"}
    connection.request("POST", f"/v1/batches?{query}", LINE, headers)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise SystemExit(f"the batch was refused: {answer.read().decode()}")
    connection.close()


def mark(pids: list[int], notes: pathlib.Path, turn: int) -> set[str]:
    """Have each process write down what ran since the last time; return ours of all."""
    for pid in pids:
        os.kill(pid, signal.SIGRTMIN)
    files = [notes / f"{pid}.{turn}" for pid in pids]
    until(lambda: all(file.exists() for file in files), 30, "a process")
    time.sleep(0.5)
    ran = {line for file in files for line in file.read_text().splitlines() if line.startswith(str(ROOT))}
    return {str(pathlib.Path(file).relative_to(ROOT)) for file in ran if pathlib.Path(file).relative_to(ROOT).parts[0] in OURS}


if __name__ == "__main__":
    main()

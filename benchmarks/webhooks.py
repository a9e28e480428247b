"""Measure what dead receivers cost the others: time from an event to its arrival at healthy receivers, with and without bad ones.

    python benchmarks/webhooks.py --postgres URL --broker URL --dead 12 --seconds 30 --turns 3

One dispatcher, one webhook sender. Each bad receiver (hang, drip, flood, reset, redirect, 500, in turn) has a hundred deliveries
waiting at the start, and hangs for as long as the default deadline allows. Prints one JSON; times in milliseconds.
"""

import argparse
import contextlib
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from guardfleet.cli.bench.site import environment, start, until
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.events import endpoints
from guardfleet.store.postgres.database import Database

WELL = 4  # healthy receivers
EVERY_S = 0.05  # between events for each of them
BACKLOG = 100  # deliveries that wait for each bad one
KIND = "batch.completed"
LAST_S = 20.0  # wait for the last arrivals
EVENT = """insert into delivery (event_id, endpoint_id, job_id, kind, occurred_at)
           select 'evt_' || gen_random_uuid(), e.id, 0, %(kind)s, now()
           from endpoint e, generate_series(1, %(n)s) where e.name = %(name)s returning event_id"""
Say = Callable[[socket.socket], object]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--dead", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    runs = []
    for _ in range(asked.turns):
        for dead in (0, asked.dead):
            with environment(asked.postgres, asked.broker, engine="instant", webhook_allow_networks=("127.0.0.0/8",)) as settings:
                runs.append({"dead": dead, **measure(settings, dead, asked.seconds)})
            print(json.dumps(runs[-1]), file=sys.stderr)
    print(json.dumps({"well": WELL, "events_per_s": WELL / EVERY_S, "runs": runs}))
    return 0


def measure(settings: Settings, dead: int, seconds: float) -> dict[str, Any]:
    """Run one turn."""
    arrived: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        db = Database(settings.required("database_url"), pool_size=2)
        stack.callback(db.close)
        keyring = Keyring(settings.required("secret_key"))
        processes = [start(settings, "webhooks", "worker", "--webhooks", says="worker_ready")]
        processes.append(start(settings, "dispatcher", "dispatcher"))
        for process in processes:
            stack.callback(process.stop)
        kinds = [hang, drip, flood, reset, redirect, fail]
        for name, n, says in (("well", WELL, [lambda connection: well(connection, arrived)]), ("dead", dead, kinds)):
            for i in range(n):
                url = stack.enter_context(receiving(says[i % len(says)]))
                endpoints.create(db, keyring, tenant_id=1, name=name, url=url, kinds=(KIND,))
        first = events(db, "well", 1)
        until(lambda: arrived.keys() >= set(first), LAST_S, "the first receiver")
        events(db, "dead", BACKLOG)
        sent: dict[str, float] = {}
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            sent |= dict.fromkeys(events(db, "well", 1), time.time())
            time.sleep(EVERY_S)
        ends = time.monotonic() + LAST_S
        while not arrived.keys() >= sent.keys() and time.monotonic() < ends:
            time.sleep(EVERY_S)
        waits = sorted(1000 * (arrived.get(event, float("inf")) - at) for event, at in sent.items())
        with db.begin() as connection:
            tried = connection.scalar(
                "select count(*) from attempt a join delivery d on d.id = a.delivery_id"
                " join endpoint e on e.id = d.endpoint_id where e.name = 'dead'"
            )
    figures = {"p50": statistics.median(waits), "p99": waits[int(0.99 * len(waits))], "max": waits[-1]}
    return {"events": len(waits), "attempts_at_dead": tried, **{key: round(value, 1) for key, value in figures.items()}}


def events(db: Database, name: str, n: int) -> list[str]:
    """Create `n` events for each endpoint of this name, as the dispatcher would relay them."""
    with db.begin() as connection:
        return connection.scalars(EVENT, {"kind": KIND, "n": n, "name": name})


@contextlib.contextmanager
def receiving(say: Say) -> Iterator[str]:
    """Start a receiver that handles each connection with `say`, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def speak(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            say(connection)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=speak, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def well(connection: socket.socket, arrived: dict[str, float]) -> None:
    """Accept one delivery after the other."""
    with connection.makefile("rb") as file:
        while file.readline():
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            file.read(int(headers["content-length"]))
            arrived[headers["webhook-id"]] = time.time()
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def hang(connection: socket.socket) -> None:
    """Accept it and answer nothing until the sender leaves."""
    while connection.recv(65_536):
        pass


def drip(connection: socket.socket) -> None:
    """Send a byte of a header now and then."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-long: ")
    while True:
        time.sleep(0.5)
        connection.sendall(b"x")


def flood(connection: socket.socket) -> None:
    """Send 20 MB, with an error."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 503 No\r\ncontent-length: 20000000\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"x" * 1_000_000)


def reset(connection: socket.socket) -> None:
    """Reset the connection."""
    connection.recv(65_536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def redirect(connection: socket.socket) -> None:
    """Redirect somewhere else."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")


def fail(connection: socket.socket) -> None:
    """Answer with an error."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")


if __name__ == "__main__":
    sys.exit(main())

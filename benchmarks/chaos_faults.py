"""The faults, each injected while verdicts are being written, and what it hit: a fault that hits idle processes proves nothing."""

import contextlib
import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kombu

from benchmarks.chaos_site import LEASE_S, Process, Site
from guardfleet.domain.lanes import Queues
from guardfleet.errors import GuardfleetError
from guardfleet.store.shards.leases import holder
from tests.services.servers import OwnRedis

Lease = tuple[int, int, int]  # job, shard, fencing token
VICTIMS = ("worker", "worker", "worker", "dispatcher", "api", "webhooks")  # of a SIGKILL
WRITING_S = 3.0  # verdicts are being written if a shard was finished within this time
STANDSTILL_S = 120.0
STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault injected at a time (Unix, s), and the leases it hit: the victim's own, or for a server those of all workers."""

    fault: str
    victim: str
    at: float
    leases: tuple[Lease, ...]


def faults_of(kills: int, broker_restarts: int, postgres_restarts: int, rng: random.Random) -> list[str]:
    """Return the faults, in random order."""
    faults = [f"kill {victim}" for victim in itertools.islice(itertools.cycle(VICTIMS), kills)]
    faults += ["restart_broker"] * broker_restarts + ["restart_postgres"] * postgres_restarts
    faults += ["stop"] * 4 + ["term"] * 4 + ["half_open_broker"] * 2 + ["half_open_postgres"] * 2 + ["empty_broker"] * 2
    rng.shuffle(faults)
    return faults


@dataclass
class Tormentor:
    """Injects faults into a site, each at a moment when verdicts are being written; `hits` records them."""

    site: Site
    rng: random.Random
    hits: list[Hit]
    ended: threading.Event

    def give(self, faults: list[str], *, pause_s: float) -> None:
        """Inject all faults, with a mean pause of `pause_s` seconds before each. Raises TimeoutError if nothing is written."""
        try:
            for fault in faults:
                time.sleep(self.rng.uniform(0.5, 1.5) * pause_s)
                self.hits.append(self._give(fault))
        finally:
            self.ended.set()

    def _give(self, fault: str) -> Hit:
        match fault.split():
            case "kill", victim:
                return self._signal("kill", victim, signal.SIGKILL)
            case ("term",):
                return self._signal(fault, "worker", signal.SIGTERM)
            case ("stop",):
                return self._stop(self.rng.choice(("worker", "dispatcher")))
        hit = Hit(fault, "server", *self._moment(None))
        match fault:
            case "half_open_broker" | "half_open_postgres":
                proxy = self.site.broker_proxy if fault == "half_open_broker" else self.site.postgres_proxy
                proxy.freeze()
                time.sleep(LEASE_S / 2)
                proxy.cut()
            case "restart_broker":
                self.site.broker.kill(empty=self.rng.random() < 0.5)  # noqa: PLR2004
                self.site.broker.start()
            case "restart_postgres":
                self.site.postgres.crash()
                self.site.postgres.start()
            case "empty_broker":
                empty(self.site)
        return hit

    def _signal(self, fault: str, kind: str, number: signal.Signals) -> Hit:
        victim = self.site.one(kind, self.rng)
        moment = self._moment(victim)
        victim.send(number)
        return Hit(fault, kind, *moment)

    def _stop(self, kind: str) -> Hit:
        victim = self.site.one(kind, self.rng)
        hit = Hit("stop", kind, *self._moment(victim))
        victim.send(signal.SIGSTOP)
        time.sleep(LEASE_S + 1)
        victim.send(signal.SIGCONT)
        return hit

    def _moment(self, victim: Process | None) -> tuple[float, tuple[Lease, ...]]:
        """Wait until verdicts are written and the victim, if it is a worker, holds a shard; return the time and its leases."""
        deadline = time.monotonic() + STANDSTILL_S
        for leases, is_writing in _looks(self.site):
            if victim is not None and victim.name.startswith("worker"):
                holding = {} if victim.pid is None else {holder(victim.pid)}
                leases = [(lease, name) for lease, name in leases if name in holding]  # noqa: PLW2901
            if is_writing and leases and (victim is None or victim.pid is not None):
                return time.time(), tuple(lease for lease, _ in leases)
            if time.monotonic() > deadline:
                raise TimeoutError(f"no verdict was written for {STANDSTILL_S:.0f} s: the fleet stands still.")
        raise AssertionError


def _looks(site: Site) -> Iterator[tuple[list[tuple[Lease, str]], bool]]:
    """Yield repeatedly the leases that are held, by whom, and whether a shard was finished lately."""
    done, since = -1, float("-inf")
    while True:
        leases: list[tuple[Lease, str]] = []
        with contextlib.suppress(GuardfleetError), site.db.session() as connection:
            n = connection.scalar("select count(*) from shard_done")
            rows = connection.execute("select job_id, shard_no, token, worker from shard where state = 1").fetchall()
            leases = [((row[0], row[1], row[2]), row[3]) for row in rows]
            if n > done:
                since = time.monotonic() if done >= 0 else since
                done = n
        yield leases, time.monotonic() - since < WRITING_S
        time.sleep(STEP_S)


def empty(site: Site) -> None:
    """Delete all messages and queues of the broker."""
    with contextlib.suppress(OSError, kombu.exceptions.OperationalError), kombu.Connection(site.broker.url) as connection:
        if isinstance(site.broker, OwnRedis):
            connection.default_channel.client.flushdb()
        else:
            for queue in Queues.of(site.settings.namespace).lanes:
                connection.default_channel.queue_delete(queue)


def report(site: Site, hits: list[Hit]) -> dict[str, Any]:
    """Count, by fault and victim: how many were injected, how many before the last verdict, how many interrupted shards.

    A shard was interrupted if somebody had to claim it again: its fencing token is later than the one that was hit.
    """
    with site.db.begin() as connection:
        last = connection.scalar("select extract(epoch from max(done_at)) from verdict")
        tokens = {(row[0], row[1]): row[2] for row in connection.execute("select job_id, shard_no, token from shard")}
    out: dict[str, Any] = {}
    for fault, victim in sorted({(hit.fault, hit.victim) for hit in hits}):
        given = [hit for hit in hits if (hit.fault, hit.victim) == (fault, victim)]
        cut = [sum(tokens[job, shard] > token for job, shard, token in hit.leases) for hit in given]
        out.setdefault(fault, {})[victim] = {
            "given": len(given),
            "before_the_last_verdict": sum(hit.at < last for hit in given),
            "hit_shards_in_work": sum(bool(hit.leases) for hit in given),
            "cut_shards_off": sum(map(bool, cut)),
        }
    return out


def wanting(told: dict[str, Any], asked: list[str]) -> list[str]:
    """Return what the faults failed to do: happen while verdicts were written, and most worker kills in mid-shard."""
    out = []
    for fault, n in Counter(fault.split()[0] for fault in asked).items():
        for what in ("given", "before_the_last_verdict", "hit_shards_in_work"):
            found = sum(by_victim[what] for by_victim in told.get(fault, {}).values())
            if found < n:
                out.append(f"{fault}: {n} asked for, {found} {what.replace('_', ' ')}")
    workers = told.get("kill", {}).get("worker", {"given": 0, "cut_shards_off": 0})
    if workers["given"] and 2 * workers["cut_shards_off"] <= workers["given"]:
        out.append(f"kill: {workers['cut_shards_off']} of {workers['given']} workers were in the middle of a shard")
    return out

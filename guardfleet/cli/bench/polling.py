"""A benchmark's client: polls the API while a job runs, and measures the latency."""

import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Any

POLLS = (("status", "", 0.05), ("page", "/results?limit=1000", 0.25))  # what is polled, and how often (s)


@dataclass
class Poller:
    """Polls the API while a job runs; collects latencies in seconds, by what was polled."""

    port: int
    key: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name, _, _ in POLLS})
    _stopped: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, batch: str) -> None:
        """Poll from threads of its own."""
        for name, path, every_s in POLLS:
            self._threads.append(
                threading.Thread(target=self._poll, args=(name, f"/v1/batches/{batch}{path}", every_s), daemon=True)
            )
            self._threads[-1].start()

    def stop(self) -> dict[str, Any]:
        """Stop polling; return p50 and p99 in milliseconds."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)
        return {name: _percentiles(found) for name, found in self.seconds.items() if found}

    def _poll(self, name: str, path: str, every_s: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        after = ""
        while not self._stopped.wait(every_s):
            started = time.perf_counter()
            connection.request("GET", path + after, headers={"Authorization": f"Bearer {self.key}"})
            answer = connection.getresponse()
            body = answer.read()
            self.seconds[name].append(time.perf_counter() - started)
            if answer.status == http.client.OK and "?" in path:
                after = f"&after={_next(body)}"


def _next(page: bytes) -> str:
    """Read a page's next cursor from its head only, so that this client's own work delays none of its polls."""
    return str(json.loads(page[: page.index(b',"data":')] + b"}")["next"])


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    return {
        "n": len(seconds),
        "p50": round(1000 * cuts[49], 2),
        "p99": round(1000 * cuts[98], 2),
        "max": round(1000 * max(seconds), 2),
    }

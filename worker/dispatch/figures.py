"""What the leading dispatcher says in numbers of all work: backlog, lateness, workers there and workers wanted.

It reads PostgreSQL, so only the one that leads says it; the others, and one that cannot read, say nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardfleet.domain.detection import is_detectors
from guardfleet.domain.scaling import HORIZON_S, LOADS_IN_S, TOKENS_PER_BYTE, Due, Fleet, OpenWork, lateness, wanted
from guardfleet.domain.states import WorkerState
from guardfleet.store import fleet, installation
from guardfleet.store.events import deliveries
from guardfleet.store.fleet import Sighting
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import backlog
from guardfleet.store.shards.backlog import Backlog
from guardfleet.telemetry import metrics

ANY = "any"  # the route of all work, whether it names a model or not
OF_THE_LEADER = (
    metrics.RETRYING, metrics.OPEN_SHARDS, metrics.BACKLOG_TEXTS, metrics.BACKLOG_TOKENS, metrics.OLDEST, metrics.STALLED,
    metrics.LATE_JOBS, metrics.WORST_LATE, metrics.WANTED, metrics.WORKERS, metrics.UNSERVED, metrics.DELIVERIES_DUE,
    metrics.DELIVERY_LAG, metrics.DATABASE_BYTES,
)  # fmt: skip
Queue = tuple[str, str]  # lane and model, as labels


@dataclass
class Figures:
    """The numbers of one dispatcher."""

    db: Database
    horizon_s: float = HORIZON_S
    unserved: tuple[str, ...] = field(default=(), init=False)  # routes with work and no worker, when last counted
    _named: frozenset[str | None] = field(default=frozenset(), init=False)  # models that open work names; None: any

    def count(self) -> None:
        """Count all open work and the workers, and write how many are wanted."""
        work, workers = backlog.open_work(self.db), fleet.heard_of(self.db)
        rates = fleet.rates(self.db)
        per_byte = _mean(rate for _, rate in rates.values()) or TOKENS_PER_BYTE
        self._queues(work, per_byte)
        self._late(work, workers, rates, per_byte)
        routes = _routes(work, workers, backlog.busy_workers(self.db), rates, per_byte, self.horizon_s)
        metrics.WANTED.replace({(route,): float(n) for route, n in routes.items()})
        fleet.write_wanted(self.db, routes)
        self._named = frozenset(one.model for one in work)
        self._there(workers)

    def workers(self) -> None:
        """Count the workers alone: that the last one is gone is to be said within seconds."""
        self._there(fleet.heard_of(self.db))

    def deliveries(self) -> None:
        """Count the webhook deliveries that are due."""
        n, oldest_s = deliveries.waiting(self.db)
        metrics.DELIVERIES_DUE.set(n)
        metrics.DELIVERY_LAG.set(oldest_s)

    def size(self) -> None:
        """Measure the database, and forget workers that are long gone."""
        metrics.DATABASE_BYTES.set(installation.size_bytes(self.db))
        fleet.forget_old(self.db)

    def forget(self) -> None:
        """Say nothing any more: another one leads, or PostgreSQL is away."""
        self.unserved, self._named = (), frozenset()
        for metric in OF_THE_LEADER:
            metric.forget()

    def _there(self, workers: Sequence[Sighting]) -> None:
        metrics.WORKERS.replace(_floats(Counter((seen.model or ANY, seen.state.label) for seen in workers)))
        self.unserved = tuple(sorted(model or ANY for model in self._named if not _serving(model, workers)))
        metrics.UNSERVED.set(len(self.unserved))

    def _queues(self, work: Sequence[Backlog], per_byte: float) -> None:
        texts, tokens, oldest = Counter[Queue](), Counter[Queue](), dict[tuple[str, ...], float]()
        shards, retrying = Counter[tuple[str, str]](), Counter[tuple[str]]()
        for one in work:
            queue = one.lane.label, one.model or ANY
            texts[queue] += one.texts
            tokens[queue] += round(one.text_bytes * per_byte)
            if one.ready:
                oldest[queue] = max(oldest.get(queue, 0.0), one.age_s)
            shards[one.lane.label, "ready"] += one.ready
            shards[one.lane.label, "leased"] += one.leased
            retrying[(one.lane.label,)] += one.retrying
        metrics.BACKLOG_TEXTS.replace(_floats(texts))
        metrics.BACKLOG_TOKENS.replace(_floats(tokens))
        metrics.OLDEST.replace(oldest)
        metrics.OPEN_SHARDS.replace(_floats(shards))
        metrics.RETRYING.replace(_floats(retrying))

    def _late(
        self, work: Sequence[Backlog], workers: Sequence[Sighting], rates: Mapping[str, tuple[float, float]], per_byte: float
    ) -> None:
        """Count the jobs that will be late. Without a worker that is ready, one is taken to start now, as fast as the last ones."""
        ready = [seen for seen in workers if seen.state is WorkerState.READY]
        of_all = sum(seen.tokens_per_s or 0.0 for seen in ready) or _mean(one for one, _ in rates.values())
        begins_in_s = 0.0 if ready else LOADS_IN_S
        by_lane: dict[str, list[OpenWork]] = defaultdict(list)
        for one in work:
            if one.left_s is not None:
                own = one.texts_per_s * one.text_bytes * per_byte / max(1, one.texts)
                by_lane[one.lane.label].append(OpenWork(one.text_bytes * per_byte, own, one.left_s))
        late = {
            lane: [seconds for seconds in lateness(jobs, of_all, begins_in_s=begins_in_s) if seconds > 0]
            for lane, jobs in by_lane.items()
        }
        metrics.LATE_JOBS.replace({(lane,): float(len(seconds)) for lane, seconds in late.items()})
        metrics.WORST_LATE.replace({(lane,): max(seconds, default=0.0) for lane, seconds in late.items()})


def _routes(
    work: Sequence[Backlog],
    workers: Sequence[Sighting],
    busy: dict[str | None, int],
    rates: dict[str, tuple[float, float]],
    per_byte: float,
    horizon_s: float,
) -> dict[str, int]:
    """Return how many workers each route needs: that of all work, and those of the models that work names.

    All work of guards has one route because a worker takes what names its model and what names none: an autoscaler that followed
    only the latter would end the workers that hold the former. A detector's worker takes nothing but its own route's.
    """
    models = {one.model for one in work} | set(busy) | {None}
    out = {}
    for model in sorted(models, key=lambda name: name or ""):
        serving = _serving(model, workers)
        known = [rate for name, (rate, _) in rates.items() if takes(model, name)]
        measured = [seen.tokens_per_s for seen in serving if seen.tokens_per_s] or known
        there = Fleet(
            busy=busy.get(model, 0),
            loading=sum(seen.state is WorkerState.LOADING for seen in serving),
            ready=sum(seen.state is WorkerState.READY for seen in serving),
            tokens_per_s=_mean(measured),
        )
        dues = [
            Due(one.text_bytes * per_byte, horizon_s if one.left_s is None else one.left_s)
            for one in work
            if takes(model, one.model)
        ]
        out[model or ANY] = wanted(dues, there)
    return out


def _serving(model: str | None, workers: Sequence[Sighting]) -> list[Sighting]:
    """Return the workers that may take work of the model; one that is still loading may turn out to."""
    return [seen for seen in workers if seen.model is None or takes(model, seen.model)]


def takes(route: str | None, model: str | None) -> bool:
    """Return whether what names this model belongs to the route; None: the guards' route, of all but the detectors'."""
    return route == model if route is not None else not is_detectors(model)


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _floats(counts: Mapping[Any, int]) -> dict[tuple[str, ...], float]:
    return {labels: float(n) for labels, n in counts.items()}

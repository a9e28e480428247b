"""Simulate an autoscaler that follows `guardfleet_workers_wanted`; the last line is one JSON.

Models: a worker loads its model for `LOAD_S`, then takes shards one after the other; the autoscaler polls, adds at once, removes
after its stabilisation window, ends the newest first as Kubernetes does, and holds its number while the signal is missing.
The arithmetic is the dispatcher's own (`guardfleet.domain.scaling`). Usage: python -m benchmarks.scaling
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from guardfleet.domain.scaling import HORIZON_S, Due, Fleet, wanted

STEP_S = 5.0  # also how often the dispatcher counts
POLL_S = 15.0  # KEDA's pollingInterval in deploy/kubernetes
STABLE_S = 300.0  # the stabilisation window: the highest number of the last so many seconds holds
LOAD_S = 120.0
RATE = 50_000.0  # tokens a second of a worker
SHARD = RATE * 20.0  # tokens: twenty seconds of work
MOST = 40
NOTHING, ROUNDED = 1e-6, 1e-3  # tokens and seconds that are left over by rounding


@dataclass(frozen=True)
class Burst:
    """Work that arrives at `at_s`, with a deadline `within_s` later; None: without one."""

    at_s: float
    tokens: float
    within_s: float | None = None


@dataclass
class Worker:
    """A worker: loading until `ready_at`, then with at most one shard of `left` tokens of the job `of`."""

    born: float
    ready_at: float
    of: "Job | None" = None
    left: float = 0.0


@dataclass
class Job:
    """Work that has arrived: `waiting` tokens that nobody holds, and its deadline as a time."""

    waiting: float
    deadline: float
    has_deadline: bool
    open: float = 0.0
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self.open = self.waiting


@dataclass
class Outcome:
    """What a simulation found."""

    worker_hours: float = 0.0
    optimum_hours: float = 0.0
    busy_ended: int = 0  # workers that were ended while they held a shard
    loading_ended: int = 0
    peak: int = 0
    turns: int = 0  # times that the number went the other way
    late_s: float = -math.inf  # the worst; below 0: in time
    zero_with_work: int = 0  # steps with work and no worker wanted
    longest_wait_s: float = 0.0  # of work without a deadline, to its end


@dataclass
class Simulation:
    """One fleet from the first arrival until all work is done and the fleet is down again."""

    bursts: Sequence[Burst]
    silent: tuple[float, float] = (-1.0, -1.0)  # when the exporter says nothing
    workers: list[Worker] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    asked: list[tuple[float, int]] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    direction: int = 0

    def run(self) -> Outcome:
        """Run until nothing is left."""
        now, coming = 0.0, sorted(self.bursts, key=lambda burst: burst.at_s)
        arrived_at: dict[int, float] = {}
        while coming or self.workers or any(job.ended_at is None for job in self.jobs):
            while coming and coming[0].at_s <= now:
                burst = coming.pop(0)
                within = HORIZON_S if burst.within_s is None else burst.within_s
                self.jobs.append(Job(burst.tokens, now + within, burst.within_s is not None))
                arrived_at[id(self.jobs[-1])] = now
            self._work(now)
            signal = self._signal(now)
            if signal == 0 and any(job.open > 0 for job in self.jobs):
                self.outcome.zero_with_work += 1
            if now % POLL_S < STEP_S:
                self._scale(now, None if self.silent[0] <= now < self.silent[1] else signal)
            self.outcome.worker_hours += len(self.workers) * STEP_S / 3600
            self.outcome.peak = max(self.outcome.peak, len(self.workers))
            now += STEP_S
        for job in self.jobs:
            ended_at = math.inf if job.ended_at is None else job.ended_at
            if job.has_deadline:
                self.outcome.late_s = max(self.outcome.late_s, ended_at - job.deadline)
            else:
                self.outcome.longest_wait_s = max(self.outcome.longest_wait_s, ended_at - arrived_at[id(job)])
        self.outcome.optimum_hours = optimum_hours(self.bursts)
        return self.outcome

    def _work(self, now: float) -> None:
        """Let each worker that is ready work for a step, in the order of the deadlines."""
        for worker in self.workers:
            seconds = min(STEP_S, max(0.0, now + STEP_S - worker.ready_at))
            while seconds > NOTHING:
                if worker.of is None:
                    job = min((job for job in self.jobs if job.waiting > 0), key=lambda job: job.deadline, default=None)
                    if job is None:
                        break
                    worker.of, worker.left = job, min(SHARD, job.waiting)
                    job.waiting -= worker.left
                done = min(worker.left, RATE * seconds)
                worker.left -= done
                worker.of.open -= done
                seconds -= done / RATE
                if worker.left <= NOTHING:
                    if worker.of.open <= ROUNDED:
                        worker.of.open, worker.of.ended_at = 0.0, now + STEP_S - seconds
                    worker.of = None

    def _signal(self, now: float) -> int:
        dues = [Due(job.open, job.deadline - now) for job in self.jobs if job.open > 0]
        ready = [worker for worker in self.workers if worker.ready_at <= now]
        there = Fleet(
            busy=sum(worker.of is not None for worker in ready),
            loading=len(self.workers) - len(ready),
            ready=len(ready),
            tokens_per_s=RATE,
        )
        return wanted(dues, there)

    def _scale(self, now: float, signal: int | None) -> None:
        if signal is None:
            return
        self.asked = [(at, n) for at, n in self.asked if at > now - STABLE_S] + [(now, signal)]
        target = min(MOST, max(n for _, n in self.asked))
        before = len(self.workers)
        self.workers += [Worker(now, now + LOAD_S) for _ in range(target - before)]
        for worker in sorted(self.workers, key=lambda worker: -worker.born)[: max(0, before - target)]:
            self.outcome.busy_ended += worker.of is not None
            self.outcome.loading_ended += worker.ready_at > now
            if worker.of is not None:  # it drains: what it has not done goes back
                worker.of.waiting += worker.left
            self.workers.remove(worker)
        change = (len(self.workers) > before) - (len(self.workers) < before)
        if change and self.direction and change != self.direction:
            self.outcome.turns += 1
        self.direction = change or self.direction


def optimum_hours(bursts: Sequence[Burst]) -> float:
    """Return the fewest worker-hours that anybody could do with: the work, and a load for each worker that the deadlines need."""
    work_s = sum(burst.tokens for burst in bursts) / RATE
    needed = max(
        math.ceil(burst.tokens / (RATE * max(1.0, (HORIZON_S if burst.within_s is None else burst.within_s) - LOAD_S)))
        for burst in bursts
    )
    return (work_s + needed * LOAD_S) / 3600


NIGHT = Burst(0, 8 * 3600 * RATE * 3.4, 8 * 3600)  # 3.4 workers' work in eight hours
BURSTS = [Burst(900 + 1500 * i, RATE * 3600 * 2) for i in range(8)]
SCENARIOS: dict[str, Simulation] = {
    "overnight job, 8 h": Simulation([NIGHT]),
    "bursts without a deadline": Simulation(BURSTS),
    "overnight job and bursts": Simulation([NIGHT, *BURSTS]),
    "a deadline that is near": Simulation([Burst(0, RATE * 3600 * 4, 3600)]),
    "exporter dead for 20 min": Simulation([NIGHT], silent=(3600.0, 4800.0)),
    "a single shard": Simulation([Burst(0, SHARD)]),
}


def main() -> None:
    """Print the table, and the same as JSON."""
    print("| scenario | worker-hours | optimum | share | peak | turns | ended busy | ended loading | zero with work | deadline |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    found = {}
    for name, simulation in SCENARIOS.items():
        out = simulation.run()
        share = out.worker_hours / out.optimum_hours
        due = "none" if out.late_s == -math.inf else f"{-out.late_s / 60:.0f} min before it"
        cells = (f"{out.worker_hours:.2f}", f"{out.optimum_hours:.2f}", f"{share:.2f}", out.peak, out.turns)
        print(f"| {name} | {' | '.join(map(str, cells))} | {out.busy_ended} | {out.loading_ended} | {out.zero_with_work} | {due} |")
        found[name] = vars(out) | {"share": share}
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()

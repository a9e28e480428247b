"""How many workers the waiting work needs, and which jobs will be late: arithmetic over figures that others have read.

Work is counted in tokens, which is what a device's time follows. Waiting work and work in hand both count: a signal of what waits
alone reads nothing whenever every shard is taken, and an autoscaler would end the workers that hold them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HORIZON_S = 3600.0  # work without a deadline is wanted done within an hour
LEAST_S = 60.0  # a deadline that is nearer, or over, asks for no more than this does
LOADS_IN_S = 120.0  # a worker that is added now takes its first shard about then
HEADROOM = 1.05  # a measured rate is never exact
ABSURD = 10_000  # no fleet has more; a deadline that nobody can meet asks for no more
TOKENS_PER_BYTE = 0.25  # of text, until a worker has measured it: four bytes a token, usual for English


@dataclass(frozen=True, slots=True)
class Due:
    """Tokens that are wanted done in so many seconds."""

    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of a route: `busy` hold a shard, `loading` have none yet, and each that is ready does so many tokens a second.

    `tokens_per_s`: measured while the device is busy; None if no worker has measured it yet.
    """

    busy: int = 0
    loading: int = 0
    ready: int = 0
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What is left of a job: `tokens`, what it does now in `tokens_per_s` (0: not begun), and its deadline, in seconds from now."""

    tokens: float
    tokens_per_s: float
    seconds: float


def wanted(work: Iterable[Due], fleet: Fleet) -> int:
    """Return how many workers end all work in time, each piece by its own deadline, at the measured rate.

    Never fewer than hold a shard or load a model: ending those would do their work twice. One where nothing was measured yet: it
    measures. The result is exact for work that is done in the order of its deadlines.
    """
    pieces = sorted((piece for piece in work if piece.tokens > 0), key=lambda piece: piece.seconds)
    floor = fleet.busy + fleet.loading
    if not pieces:
        return floor
    if not fleet.tokens_per_s:
        return max(1, floor)
    return max(1, floor, min(_enough(pieces, fleet), ABSURD))


def _enough(pieces: Sequence[Due], fleet: Fleet) -> int:
    """Return how many workers end each piece in time; those that are not there yet come after `LOADS_IN_S`."""
    assert fleet.tokens_per_s  # noqa: S101 - wanted() has looked
    tokens, enough = 0.0, 0
    for piece in pieces:
        tokens += piece.tokens
        seconds = max(piece.seconds, LEAST_S)
        need = HEADROOM * tokens / fleet.tokens_per_s  # seconds of one worker
        if need > fleet.ready * seconds:
            late = max(seconds - LOADS_IN_S, LEAST_S)
            enough = max(enough, fleet.ready + math.ceil((need - fleet.ready * seconds) / late - 1e-9))
        else:
            enough = max(enough, math.ceil(need / seconds - 1e-9))
    return enough


def lateness(jobs: Sequence[OpenWork], fleet_tokens_per_s: float | None, *, begins_in_s: float = 0.0) -> list[float]:
    """Return for each job how many seconds after its deadline it will end at the present rate; not above 0: in time.

    A job goes on at its own rate. One that has not begun waits for all with an earlier deadline, at the fleet's rate, which begins
    in so many seconds: where no worker is there, one has to start. None: nobody knows the rate, and work takes no time once it
    begins, so that only a deadline before that counts as missed.
    """
    ahead, late = 0.0, {}
    for i, job in sorted(enumerate(jobs), key=lambda item: item[1].seconds):
        ahead += job.tokens
        if job.tokens_per_s > 0:
            ends_s = job.tokens / job.tokens_per_s
        else:
            ends_s = begins_in_s + (ahead / fleet_tokens_per_s if fleet_tokens_per_s else 0.0)
        late[i] = ends_s - job.seconds if job.tokens > 0 else -job.seconds
    return [late[i] for i in range(len(jobs))]

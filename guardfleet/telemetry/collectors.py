"""Kinds of metrics that prometheus_client lacks: a gauge that is silent until it is known, a histogram that takes many at once."""

import threading
import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Labels = tuple[str, ...]


class Known(Collector):
    """A gauge whose values are set as a whole; it exports nothing before, and nothing once it is forgotten.

    A value that this process does not know is left out: zero would be a claim, and silence is what `absent()` finds.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self.name, self.documentation, self.labels = name, documentation, tuple(labels)
        self._values: Mapping[Labels, float | Callable[[], float]] = {}

    def set(self, value: float | Callable[[], float]) -> None:
        """Set the only value of a gauge without labels; a function is asked at each scrape."""
        self._values = {(): value}

    def put(self, labels: Labels, value: float) -> None:
        """Set the value with these labels."""
        self._values = {**self._values, labels: value}

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Replace all values, by their labels in order."""
        self._values = dict(values)

    def forget(self) -> None:
        """Export nothing from now on."""
        self._values = {}

    def describe(self) -> list[Metric]:
        """Return the gauge without values."""
        return [GaugeMetricFamily(self.name, self.documentation, labels=self.labels)]

    def collect(self) -> Iterator[Metric]:
        """Return the values that are known."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value() if callable(value) else value)
        if family.samples:
            yield family


class Durations(Collector):
    """A histogram of seconds that counts `n` equal observations at once: a shard's texts share their duration."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, buckets: Sequence[float]) -> None:
        self.name, self.documentation, self.labels = name, documentation, tuple(labels)
        self._bounds = tuple(buckets)
        self._lock = threading.Lock()
        self._counts: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(self._bounds) + 1))
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, labels: Labels, seconds: float, n: int = 1) -> None:
        """Count `n` observations."""
        with self._lock:
            self._counts[labels][bisect_left(self._bounds, seconds)] += n
            self._sums[labels] += seconds * n

    def describe(self) -> list[Metric]:
        """Return the histogram without observations."""
        return [HistogramMetricFamily(self.name, self.documentation, labels=self.labels)]

    def collect(self) -> Iterator[Metric]:
        """Return the cumulative counts of each set of labels."""
        bounds = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        with self._lock:
            counted = {labels: (list(counts), self._sums[labels]) for labels, counts in self._counts.items()}
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, (counts, total) in counted.items():
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        if family.samples:
            yield family


class RollingShare(Collector):
    """A gauge with the share of what was counted in the last `window_s` seconds; silent while nothing was."""

    def __init__(self, name: str, documentation: str, *, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.documentation, self.labels = name, documentation, ()
        self._window_s, self._clock = window_s, clock
        self._lock = threading.Lock()
        self._counted: deque[tuple[float, int, int]] = deque()  # when, how many of it, of how many

    def add(self, part: int, whole: int) -> None:
        """Count `part` of `whole` now."""
        with self._lock:
            self._counted.append((self._clock(), part, whole))
            self._drop_old()

    def describe(self) -> list[Metric]:
        """Return the gauge without a value."""
        return [GaugeMetricFamily(self.name, self.documentation)]

    def collect(self) -> Iterator[Metric]:
        """Return the share, if anything was counted."""
        with self._lock:
            self._drop_old()
            part, whole = (sum(counted[place] for counted in self._counted) for place in (1, 2))
        if whole:
            yield GaugeMetricFamily(self.name, self.documentation, value=part / whole)

    def _drop_old(self) -> None:
        oldest = self._clock() - self._window_s
        while self._counted and self._counted[0][0] < oldest:
            self._counted.popleft()

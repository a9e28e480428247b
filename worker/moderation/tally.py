"""Updates the metrics once per shard: a label look-up per text would cost more than the text's row."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter

from guardfleet.domain.verdict import Category, ServedBy, Severity, category_names
from guardfleet.rows.payload import PayloadRow
from guardfleet.store.detections import Detected
from guardfleet.telemetry import metrics
from guardfleet.verdicts.encoding import Codes

SEVERITY, CATEGORIES, SERVED_BY, ERROR = (
    itemgetter(Codes._fields.index(name)) for name in ("severity", "categories", "served_by", "error")
)  # a third of the time of attributes


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts what has happened to shards and their texts. Called from all task threads."""

    @contextmanager
    def in_work(self, texts: int) -> Iterator[None]:
        """Count the texts of a shard as in work until the block is left."""
        metrics.ACTIVE.inc(texts)
        try:
            yield
        finally:
            metrics.ACTIVE.dec(texts)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as that of a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            metrics.STAGES.labels(name).inc(time.perf_counter() - began)

    def fenced(self) -> None:
        """Count a shard whose finish was refused."""
        metrics.SHARDS.labels("fenced").inc()

    def add(self, texts: Sequence[PayloadRow], written: Sequence[Codes], *, seconds: float, escalated: int) -> None:
        """Count one finished shard by what was stored of its texts; `seconds` from its claim to its commit."""
        metrics.SHARDS.labels("finished").inc()
        metrics.ESCALATED.inc(escalated)
        safe = 0
        for method, of_method in _by_method(texts, written):
            for severity, n in Counter(map(SEVERITY, of_method)).items():
                safe += n if severity == Severity.SAFE else 0
                metrics.REQUESTS.labels(method, Severity(severity).label).inc(n)
            metrics.REQUEST_SECONDS.observe((method,), seconds, len(of_method))
        for served_by, n in Counter(map(SERVED_BY, written)).items():
            if served_by not in (ServedBy.MODEL, ServedBy.NOBODY):
                metrics.SAVED.labels(ServedBy(served_by).label).inc(n)
        for code, n in Counter(map(ERROR, written)).items():
            if code is not None:
                metrics.ERRORS.labels(code).inc(n)
        for categories, n in Counter(map(CATEGORIES, written)).items():
            for name in category_names(Category(categories)):
                metrics.RISK_TYPES.labels(name).inc(n)
                metrics.CATEGORIES.labels(name).inc(n)
        metrics.SAFE_RATIO.add(safe, sum(said.severity != Severity.UNRATED for said in written))

    def detected(self, found: Iterable[Detected]) -> None:
        """Count how the texts of one finished shard ended with each detector."""
        for one in found:
            for name, n in Counter(said.word for said in one.detections).items():
                metrics.DETECTIONS.labels(one.model.detector, name).inc(n)


def _by_method(texts: Sequence[PayloadRow], written: Sequence[Codes]) -> list[tuple[str, Sequence[Codes]]]:
    """Divide the verdicts by their texts' method: of most shards all are prompts."""
    if all(type(text.content) is str for text in texts):
        return [("prompt", written)]
    out: dict[str, list[Codes]] = {}
    for text, said in zip(texts, written, strict=True):
        out.setdefault(method_of(text), []).append(said)
    return list(out.items())


def method_of(text: PayloadRow) -> str:
    """Return whether a prompt is judged or, where the last turn is the assistant's, a response."""
    content = text.content
    return "response" if not isinstance(content, str) and content[-1]["role"] == "assistant" else "prompt"

"""Updates the metrics once per shard: a label look-up per text would cost more than the text's row."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from guardfleet.domain.verdict import Category, ServedBy, Severity, category_names
from guardfleet.rows.payload import PayloadRow
from guardfleet.telemetry import metrics
from guardfleet.verdicts.encoding import Codes


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
        methods = Counter[str]()
        outcomes = Counter((method_of(text), said.severity) for text, said in zip(texts, written, strict=True))
        for (method, severity), n in outcomes.items():
            metrics.REQUESTS.labels(method, Severity(severity).label).inc(n)
            methods[method] += n
        for method, n in methods.items():
            metrics.REQUEST_SECONDS.observe((method,), seconds, n)
        for served_by, n in Counter(said.served_by for said in written).items():
            if served_by not in (ServedBy.MODEL, ServedBy.NOBODY):
                metrics.SAVED.labels(ServedBy(served_by).label).inc(n)
        for code, n in Counter(said.error for said in written if said.error).items():
            metrics.ERRORS.labels(code).inc(n)
        for categories, n in Counter(said.categories for said in written).items():
            for name in category_names(Category(categories)):
                metrics.RISK_TYPES.labels(name).inc(n)
                metrics.CATEGORIES.labels(name).inc(n)
        metrics.SAFE_RATIO.add(sum(said.severity == Severity.SAFE for said in written), len(written))


def method_of(text: PayloadRow) -> str:
    """Return whether a prompt is judged or, where the last turn is the assistant's, a response."""
    content = text.content
    return "response" if not isinstance(content, str) and content[-1]["role"] == "assistant" else "prompt"

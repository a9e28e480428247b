"""One submit() under way: how many of its rows are open, and what its caller gets once none is."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

from worker.engine.interfaces import Answer, Judged, Pieces, Prepared, Timings, Unjudgeable


class Request:
    """The rows of one submit(); once queued, used by the engine thread only."""

    def __init__(self, prepared: Sequence[Prepared | Pieces | Unjudgeable], *, urgent: bool) -> None:
        self.future: Future[Judged] = Future()
        self._prepared = [row if isinstance(row, Pieces) else None for row in prepared]
        self.left = sum(len(row.rows) if isinstance(row, Pieces) else 1 for row in prepared)
        self.answers: list[Answer | None] = [None] * self.left
        self.urgent = urgent
        self.timings = Timings()
        self.queued_at = time.perf_counter()

    def record(self, index: int, answer: Answer) -> None:
        """Record the answer of one row, once."""
        if self.answers[index] is None:
            self.answers[index] = answer
            self.left -= 1

    def resolve(self) -> None:
        """Resolve the future if no row is open."""
        if not self.left and not self.future.done():
            answers = iter([answer for answer in self.answers if answer is not None])
            joined = [_joined(pieces, answers) if pieces else next(answers) for pieces in self._prepared]
            self.future.set_result(Judged(joined, self.timings))


Row = tuple[Request, int, Prepared]  # and its index in the request


def requests_of(batch: Sequence[Row]) -> list[Request]:
    """Return each request that has rows in the batch, once."""
    return list({id(request): request for request, _, _ in batch}.values())


def _joined(pieces: Pieces, answers: Iterator[Answer]) -> Answer:
    """Join the answers of a content that took several rows."""
    several = [next(answers) for _ in pieces.rows]
    if not pieces.spans:
        return replace(several[0], notes=pieces.notes)
    return Answer(
        "",
        input_tokens=sum(answer.input_tokens for answer in several),
        output_tokens=sum(answer.output_tokens for answer in several),
        windows=tuple((start, end, answer) for (start, end), answer in zip(pieces.spans, several, strict=True)),
        notes=pieces.notes,
    )

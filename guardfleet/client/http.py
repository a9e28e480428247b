"""Clients over HTTP, sync and async, with the direct client's methods; for callers without access to the database."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx2

from guardfleet.client import label_calls
from guardfleet.client.job import DEFAULTS, PLAIN, Job, RowSource, SubmitOptions, listed
from guardfleet.client.labels import RANDOM, LabelReport, Sample
from guardfleet.client.protocol import PAGE, Calls, Steps, Wait, base_url
from guardfleet.client.verdict import Detection, Verdict
from guardfleet.domain.options import JobOptions

PATIENCE_S = 900.0
TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
T = TypeVar("T")


class Client:
    """A client of a fleet's API. A context manager; thread-safe."""

    def __init__(
        self, url: str, api_key: str, *, patience_s: float = PATIENCE_S, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self._client = httpx2.Client(base_url=base_url(url), headers=_headers(api_key), timeout=TIMEOUT, transport=transport)
        self._calls = Calls(patience_s=patience_s, clock=time.monotonic, rng=random.random)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, texts: Iterable[str | Mapping[str, Any]], options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN) -> Job:
        """Submit texts, as `DirectClient.submit`. Returns once all are committed; work has begun by then."""
        return self._run(self._calls.submit(texts, options, how))

    def submit_rows(self, source: RowSource, options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN) -> Job:
        """Submit rows that a reader has numbered and checked. Raises RejectedError if there are none."""
        return self._run(self._calls.submit_rows(source, options, how))

    def status(self, job_id: str) -> Job:
        """Return a job's status. Raises NotFoundError."""
        return self._run(self._calls.status(job_id))

    def results(
        self,
        job_id: str,
        *,
        severity: Sequence[str] | None = None,
        category: str | None = None,
        status: str | None = None,
        since: float | None = None,
        action: Sequence[str] | None = None,
        detector: str | None = None,
        label: Sequence[str] | None = None,
    ) -> Iterator[Verdict]:
        """Yield verdicts as they come, each once, until the job has ended: all, or those of a filter (docs/api.md)."""
        filters = _filters(severity, category, status, since, action, detector, label)
        after: str | None = None
        while True:
            page = self._run(self._calls.page(job_id, after, filters))
            yield from page["data"]
            after = page["next"]
            if page["complete"]:
                return

    def refused(self, job_id: str, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield refused input lines, in order: `line`, `code`, `detail`, `row_id`."""
        after, left = None, limit
        while left is None or left > 0:
            page = self._run(self._calls.refused(job_id, after, PAGE if left is None else min(PAGE, left)))
            yield from page["data"]
            after, left = page["next"], None if left is None else left - len(page["data"])
            if not page["has_more"]:
                return

    def jobs(self, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Return a page of the key's jobs, newest first; `after` is the last id of the previous page."""
        return self._run(self._calls.jobs(after, limit))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; existing verdicts are kept."""
        return self._run(self._calls.change(job_id, "cancel"))

    def retry(self, job_id: str, *, error: Sequence[str] | None = None) -> Job:
        """Judge the failed texts of an ended job again, or those with these error codes, as a new job (docs/retry.md)."""
        return self._run(self._calls.retry(job_id, error))

    def pause(self, job_id: str) -> Job:
        """Pause a job."""
        return self._run(self._calls.change(job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Resume a paused job."""
        return self._run(self._calls.change(job_id, "resume"))

    def moderate(self, value: str | Mapping[str, Any]) -> Verdict:
        """Judge a text, or `{"messages": [...]}`, while the caller waits."""
        return self._run(self._calls.moderate(value))

    def detect(self, texts: str | Sequence[str], detectors: Sequence[str]) -> list[Mapping[str, Detection]]:
        """Ask detectors about a text, or several, while the caller waits; one result each, by the detector's name."""
        return self._run(self._calls.detect(texts, detectors))

    def label(self, given: Iterable[Mapping[str, Any]]) -> LabelReport:
        """Store what people say of texts (docs/labels.md); sent again, none is stored twice."""
        return self._run(label_calls.store(self._calls, given))

    def sample(
        self, job_id: str, *, n: int = 500, by: Sequence[str] = RANDOM, slice_key: str | None = None, seed: int | None = None
    ) -> Sample:
        """Draw texts of an ended job to be labelled, with known probabilities."""
        return self._run(label_calls.sample(self._calls, job_id, n, by, slice_key, seed))

    def reviews(self, job_id: str | None = None, *, after: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return a page of the texts that wait for a person, oldest first; `after` is the last id of the previous page."""
        return self._run(label_calls.reviews(self._calls, job_id, after, limit))

    def _run(self, steps: Steps[T]) -> T:
        said: httpx2.Response | httpx2.TransportError | None = None
        try:
            while True:
                step = steps.send(said)
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    said = None
                    continue
                try:
                    body = step.body() if step.body else None
                    said = self._client.request(step.method, step.path, params=step.params, headers=step.headers, content=body)
                except httpx2.TransportError as error:
                    said = error
        except StopIteration as end:
            found: T = end.value
            return found


class AsyncClient:
    """`Client` for an event loop. An async context manager."""

    def __init__(
        self, url: str, api_key: str, *, patience_s: float = PATIENCE_S, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._client = httpx2.AsyncClient(base_url=base_url(url), headers=_headers(api_key), timeout=TIMEOUT, transport=transport)
        self._calls = Calls(patience_s=patience_s, clock=time.monotonic, rng=random.random)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def submit(
        self, texts: Iterable[str | Mapping[str, Any]], options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN
    ) -> Job:
        """Submit texts, as `Client.submit`. They are read on the event loop, so reading them must not block."""
        return await self._run(self._calls.submit(texts, options, how))

    async def submit_rows(self, source: RowSource, options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN) -> Job:
        """Submit rows, as `Client.submit_rows`."""
        return await self._run(self._calls.submit_rows(source, options, how))

    async def status(self, job_id: str) -> Job:
        """Return a job's status. Raises NotFoundError."""
        return await self._run(self._calls.status(job_id))

    async def results(
        self,
        job_id: str,
        *,
        severity: Sequence[str] | None = None,
        category: str | None = None,
        status: str | None = None,
        since: float | None = None,
        action: Sequence[str] | None = None,
        detector: str | None = None,
        label: Sequence[str] | None = None,
    ) -> AsyncIterator[Verdict]:
        """Yield verdicts, as `Client.results`."""
        filters = _filters(severity, category, status, since, action, detector, label)
        after: str | None = None
        while True:
            page = await self._run(self._calls.page(job_id, after, filters))
            for row in page["data"]:
                yield row
            after = page["next"]
            if page["complete"]:
                return

    async def refused(self, job_id: str, *, limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield refused lines, as `Client.refused`."""
        after, left = None, limit
        while left is None or left > 0:
            page = await self._run(self._calls.refused(job_id, after, PAGE if left is None else min(PAGE, left)))
            for line in page["data"]:
                yield line
            after, left = page["next"], None if left is None else left - len(page["data"])
            if not page["has_more"]:
                return

    async def jobs(self, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Return a page of the key's jobs, as `Client.jobs`."""
        return await self._run(self._calls.jobs(after, limit))

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job; existing verdicts are kept."""
        return await self._run(self._calls.change(job_id, "cancel"))

    async def retry(self, job_id: str, *, error: Sequence[str] | None = None) -> Job:
        """Judge failed texts again, as `Client.retry`."""
        return await self._run(self._calls.retry(job_id, error))

    async def pause(self, job_id: str) -> Job:
        """Pause a job."""
        return await self._run(self._calls.change(job_id, "pause"))

    async def resume(self, job_id: str) -> Job:
        """Resume a paused job."""
        return await self._run(self._calls.change(job_id, "resume"))

    async def moderate(self, value: str | Mapping[str, Any]) -> Verdict:
        """Judge a text, or `{"messages": [...]}`, while the caller waits."""
        return await self._run(self._calls.moderate(value))

    async def detect(self, texts: str | Sequence[str], detectors: Sequence[str]) -> list[Mapping[str, Detection]]:
        """Ask detectors, as `Client.detect`."""
        return await self._run(self._calls.detect(texts, detectors))

    async def label(self, given: Iterable[Mapping[str, Any]]) -> LabelReport:
        """Store labels, as `Client.label`."""
        return await self._run(label_calls.store(self._calls, given))

    async def sample(
        self, job_id: str, *, n: int = 500, by: Sequence[str] = RANDOM, slice_key: str | None = None, seed: int | None = None
    ) -> Sample:
        """Draw a sample, as `Client.sample`."""
        return await self._run(label_calls.sample(self._calls, job_id, n, by, slice_key, seed))

    async def reviews(self, job_id: str | None = None, *, after: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return a page of the review queue, as `Client.reviews`."""
        return await self._run(label_calls.reviews(self._calls, job_id, after, limit))

    async def _run(self, steps: Steps[T]) -> T:
        said: httpx2.Response | httpx2.TransportError | None = None
        try:
            while True:
                step = steps.send(said)
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    said = None
                    continue
                try:
                    body = _async_bytes(step.body()) if step.body else None
                    said = await self._client.request(
                        step.method, step.path, params=step.params, headers=step.headers, content=body
                    )
                except httpx2.TransportError as error:
                    said = error
        except StopIteration as end:
            found: T = end.value
            return found


async def _async_bytes(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _filters(
    severity: Sequence[str] | None,
    category: str | None,
    status: str | None,
    since: float | None,
    action: Sequence[str] | None,
    detector: str | None,
    label: Sequence[str] | None,
) -> dict[str, Any]:
    asked = {"severity": listed(severity), "category": category, "status": status, "since": since, "action": listed(action)}
    asked |= {"detector": detector, "label": listed(label)}
    return {name: value for name, value in asked.items() if value is not None}


def _headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}", "user-agent": "guardfleet"}

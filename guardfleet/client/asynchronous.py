"""The direct client (which has the database's address) for an event loop: each call runs in a thread."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, TypeVar

from guardfleet.client.direct import PAGE, DirectClient, Submission
from guardfleet.client.job import DEFAULTS, PLAIN, Job, RowSource, SubmitOptions
from guardfleet.client.labels import RANDOM, LabelReport, Sample
from guardfleet.client.verdict import Detection, Verdict
from guardfleet.domain.options import JobOptions
from guardfleet.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class AsyncDirectClient:
    """`DirectClient` for an event loop. An async context manager."""

    client: DirectClient

    @classmethod
    async def connect(cls, settings: Settings) -> Self:
        """Connect to configured services, as `DirectClient.connect`."""
        return cls(await asyncio.to_thread(DirectClient.connect, settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self.client.close)

    async def submit(
        self, texts: Iterable[str | Mapping[str, Any]], options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN
    ) -> Submission:
        """Submit texts, as `DirectClient.submit`; they are read in a thread."""
        return await asyncio.to_thread(self.client.submit, texts, options, how)

    async def submit_rows(self, source: RowSource, options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN) -> Submission:
        """Submit rows, as `DirectClient.submit_rows`."""
        return await asyncio.to_thread(self.client.submit_rows, source, options, how)

    async def status(self, job_id: str) -> Job:
        """Return a job's status. Raises NotFoundError."""
        return await asyncio.to_thread(self.client.status, job_id)

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
        """Yield verdicts, as `DirectClient.results`."""
        found = self.client.results(
            job_id,
            severity=severity,
            category=category,
            status=status,
            since=since,
            action=action,
            detector=detector,
            label=label,
        )
        async for verdict in _apart(found):
            yield verdict

    async def refused(self, job_id: str, *, limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield refused lines, as `DirectClient.refused`."""
        async for line in _apart(await asyncio.to_thread(self.client.refused, job_id, limit=limit)):
            yield line

    async def jobs(self, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Return a page of the tenant's jobs, as `DirectClient.jobs`."""
        return await asyncio.to_thread(self.client.jobs, after=after, limit=limit)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job; existing verdicts are kept."""
        return await asyncio.to_thread(self.client.cancel, job_id)

    async def retry(self, job_id: str, *, error: Sequence[str] | None = None) -> Job:
        """Judge failed texts again, as `DirectClient.retry`."""
        return await asyncio.to_thread(self.client.retry, job_id, error=error)

    async def pause(self, job_id: str) -> Job:
        """Pause a job."""
        return await asyncio.to_thread(self.client.pause, job_id)

    async def resume(self, job_id: str) -> Job:
        """Resume a paused job."""
        return await asyncio.to_thread(self.client.resume, job_id)

    async def label(self, given: Iterable[Mapping[str, Any]]) -> LabelReport:
        """Store labels, as `DirectClient.label`."""
        return await asyncio.to_thread(self.client.label, given)

    async def sample(
        self, job_id: str, *, n: int = 500, by: Sequence[str] = RANDOM, slice_key: str | None = None, seed: int | None = None
    ) -> Sample:
        """Draw a sample, as `DirectClient.sample`."""
        return await asyncio.to_thread(self.client.sample, job_id, n=n, by=by, slice_key=slice_key, seed=seed)

    async def reviews(self, job_id: str | None = None, *, after: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return a page of the review queue, as `DirectClient.reviews`."""
        return await asyncio.to_thread(self.client.reviews, job_id, after=after, limit=limit)

    async def moderate(self, value: str | Mapping[str, Any]) -> Verdict:
        """Judge a text, or `{"messages": [...]}`, while the caller waits."""
        return await asyncio.to_thread(self.client.moderate, value)

    async def detect(self, texts: str | Sequence[str], detectors: Sequence[str]) -> list[Mapping[str, Detection]]:
        """Ask detectors, as `DirectClient.detect`."""
        return await asyncio.to_thread(self.client.detect, texts, detectors)


async def _apart(found: Iterator[T]) -> AsyncIterator[T]:
    """Iterate over a blocking iterator, a page at a time in a thread."""
    while page := await asyncio.to_thread(lambda: list(islice(found, PAGE))):
        for each in page:
            yield each

"""The producer over HTTP, for callers without the database's address: the direct one's methods, sync and async."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx2

from guardfleet.client.direct import Options
from guardfleet.client.protocol import PAGE, Batch, Calls, Steps, Wait
from producer.sources import Inputs

PATIENCE_S = 900.0
MAX_TEXT_BYTES = 8 << 20  # more than an API takes: it says itself what is too large for it
TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
DEFAULTS = Options()
T = TypeVar("T")


class HttpProducer:
    """A producer behind an API. A context manager; thread-safe."""

    def __init__(
        self, url: str, api_key: str, *, patience_s: float = PATIENCE_S, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self._client = httpx2.Client(base_url=url, headers=_headers(api_key), timeout=TIMEOUT, transport=transport)
        self._calls = Calls(patience_s=patience_s, clock=time.monotonic, rng=random.random)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, texts: Iterable[str | Mapping[str, Any]], options: Options = DEFAULTS) -> Batch:
        """Take texts in, as the direct producer does. Returns once all are committed; work has begun by then."""
        return self._run(self._calls.submit(texts, options))

    def submit_file(self, path: str | Sequence[str], options: Options = DEFAULTS) -> Batch:
        """Take a file in, or files, folders and patterns as one batch (`-`: standard input); docs/input.md says what is read."""
        return self.submit_input(Inputs(path, options.reading, max_text_bytes=MAX_TEXT_BYTES), options)

    def submit_input(self, inputs: Inputs, options: Options = DEFAULTS) -> Batch:
        """Take an input in that was looked at already. Raises RejectedError where nothing is in it."""
        try:
            return self._run(self._calls.submit_input(inputs, options))
        finally:
            inputs.close()

    def status(self, batch_id: str) -> Batch:
        """Where a batch is; raises NotFoundError."""
        return self._run(self._calls.status(batch_id))

    def results(self, batch_id: str, **filters: Any) -> Iterator[dict[str, Any]]:
        """Verdicts as they come, each once, until the batch has ended. Filters: severity, category, status, since."""
        after: str | None = None
        while True:
            page = self._run(self._calls.page(batch_id, after, filters))
            yield from page["data"]
            after = page["next"]
            if page["complete"]:
                return

    def refused(self, batch_id: str, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Input lines that were refused, in order: `line`, `code`, `detail`, `row_id`."""
        after: str | None = None
        n = 0
        while limit is None or n < limit:
            page = self._run(self._calls.refused(batch_id, after, PAGE if limit is None else min(PAGE, limit - n)))
            yield from page["data"]
            n += len(page["data"])
            after = page["next"]
            if not page["has_more"]:
                return

    def batches(self, *, after: str | None = None, limit: int = 20) -> list[Batch]:
        """A page of the key's batches, newest first; `after` is the last of the page before."""
        return self._run(self._calls.batches(after, limit))

    def cancel(self, batch_id: str) -> Batch:
        """Stop a batch; verdicts it has stay."""
        return self._run(self._calls.change(batch_id, "cancel"))

    def pause(self, batch_id: str) -> Batch:
        """Let a batch rest."""
        return self._run(self._calls.change(batch_id, "pause"))

    def resume(self, batch_id: str) -> Batch:
        """Take a paused batch up again."""
        return self._run(self._calls.change(batch_id, "resume"))

    def moderate(self, value: str | Mapping[str, Any]) -> dict[str, Any]:
        """The verdict of a text, or of `{"messages": [...]}`, at once."""
        return self._run(self._calls.moderate(value))

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


class AsyncHttpProducer:
    """The same for an event loop. An async context manager."""

    def __init__(
        self, url: str, api_key: str, *, patience_s: float = PATIENCE_S, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._client = httpx2.AsyncClient(base_url=url, headers=_headers(api_key), timeout=TIMEOUT, transport=transport)
        self._calls = Calls(patience_s=patience_s, clock=time.monotonic, rng=random.random)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def submit(self, texts: Iterable[str | Mapping[str, Any]], options: Options = DEFAULTS) -> Batch:
        """As `HttpProducer.submit`."""
        return await self._run(self._calls.submit(texts, options))

    async def status(self, batch_id: str) -> Batch:
        """As `HttpProducer.status`."""
        return await self._run(self._calls.status(batch_id))

    async def results(self, batch_id: str, **filters: Any) -> AsyncIterator[dict[str, Any]]:
        """As `HttpProducer.results`."""
        after: str | None = None
        while True:
            page = await self._run(self._calls.page(batch_id, after, filters))
            for row in page["data"]:
                yield row
            after = page["next"]
            if page["complete"]:
                return

    async def cancel(self, batch_id: str) -> Batch:
        """As `HttpProducer.cancel`."""
        return await self._run(self._calls.change(batch_id, "cancel"))

    async def moderate(self, value: str | Mapping[str, Any]) -> dict[str, Any]:
        """As `HttpProducer.moderate`."""
        return await self._run(self._calls.moderate(value))

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


async def _async_bytes(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}", "user-agent": "guardfleet"}

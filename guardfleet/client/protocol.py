"""What a client sends over HTTP, and when it retries: written once, as generators of steps that know no network.

`http` has the drivers that run them. Every request that creates something has an idempotency key, so it can be repeated.
"""

import json
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import orjson

from guardfleet.client.job import Job, Numbered, RowSource, SubmitOptions, many, not_empty
from guardfleet.client.verdict import Detection, Verdict
from guardfleet.domain.options import JobOptions
from guardfleet.domain.retry import backoff_s, retry_after_s
from guardfleet.errors import ConfigurationError, LineError, NotFoundError, RejectedError, RetryableError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.metadata import NOTES
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.refusals import line_of
from guardfleet.rows.row import row_of

ATTEMPTS = 6  # failed ones; being told to come back later is not a failure
BASE_S, CAP_S = 0.5, 30.0
PAGE = 1000
LONG_POLL_S = 30
CHUNK_BYTES = 256 << 10
NOT_NOW = (408, 500, 502, 503, 504)
MOST_PORT = 65535
TOO_MANY, CONFLICT, MISSING = 429, 409, 404
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """A request to send. `body` makes its bytes anew each time."""

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    body: Callable[[], Iterator[bytes]] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause, in seconds."""

    seconds: float


Steps = Generator[Send | Wait, httpx2.Response | httpx2.TransportError | None, T]


def base_url(url: str) -> str:
    """Return the URL of an API. Raises ConfigurationError for one that no request could be sent to."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        parts = httpx2.URL()
    is_port = parts.port is None or 0 < parts.port <= MOST_PORT
    if (
        parts.scheme not in ("http", "https")
        or not parts.host.strip(".")
        or set(parts.host) & set(" %")
        or not is_port
        or parts.query
    ):
        raise ConfigurationError(
            "the URL of the API cannot be used: it is http:// or https:// with a host and a port, as http://host:8080."
        )
    return url


class Calls:
    """The steps of each client method; the clock is passed in."""

    def __init__(self, *, patience_s: float, clock: Callable[[], float], rng: Callable[[], float]) -> None:
        self._patience_s, self._clock, self._rng = patience_s, clock, rng

    def submit(self, texts: Iterable[str | Mapping[str, Any]], options: JobOptions, how: SubmitOptions) -> Steps[Job]:
        """Send texts as a batch. A list is sent again after a lost connection; an iterator, readable only once, is not."""
        is_repeatable = isinstance(many(texts), Sequence)
        return self._submit(lambda: _lines(texts, how.columns), options, how, is_repeatable=is_repeatable)

    def submit_rows(self, source: RowSource, options: JobOptions, how: SubmitOptions) -> Steps[Job]:
        """Send rows as a batch, read anew for each attempt. Raises RejectedError if there are none."""

        def lines() -> Iterator[bytes]:
            return not_empty(_row_lines(source.rows()), source.name, allow_empty=how.allow_empty)

        return self._submit(lines, options, how, is_repeatable=source.is_repeatable)

    def status(self, batch_id: str) -> Steps[Job]:
        """Get a batch's status."""
        found = yield from self.ask(Send("GET", f"/v1/batches/{batch_id}"))
        return job_of(found.content)

    def jobs(self, after: str | None, limit: int) -> Steps[list[Job]]:
        """Get a page of batches, newest first."""
        found = yield from self.ask(Send("GET", "/v1/batches", {"limit": limit} | ({"after": after} if after else {})))
        return [job_of(orjson.dumps(one)) for one in orjson.loads(found.content)["data"]]

    def change(self, batch_id: str, verb: str) -> Steps[Job]:
        """Cancel, pause or resume a batch."""
        found = yield from self.ask(Send("POST", f"/v1/batches/{batch_id}/{verb}"))
        return job_of(found.content)

    def retry(self, batch_id: str, error: Sequence[str] | None) -> Steps[Job]:
        """Have the failed texts of a batch judged again, once however often the request is sent."""
        asked = {"error": [error] if isinstance(error, str) else list(error)} if error else None
        found = yield from self.ask(Send("POST", f"/v1/batches/{batch_id}/retry", asked, {"idempotency-key": uuid.uuid4().hex}))
        return job_of(found.content)

    def page(self, batch_id: str, after: str | None, params: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """Get the next verdicts; waits a while for them."""
        asked = {**params, "limit": PAGE} | ({"after": after} if after else {})
        headers = {"Prefer": f"wait={LONG_POLL_S}"}
        found = yield from self.ask(Send("GET", f"/v1/batches/{batch_id}/results", asked, headers))
        page: dict[str, Any] = orjson.loads(found.content)
        return page

    def refused(self, batch_id: str, after: str | None, limit: int) -> Steps[dict[str, Any]]:
        """Get the next refused lines."""
        asked = {"limit": limit} | ({"after": after} if after else {})
        found = yield from self.ask(Send("GET", f"/v1/batches/{batch_id}/rejections", asked))
        page: dict[str, Any] = orjson.loads(found.content)
        return page

    def moderate(self, value: str | Mapping[str, Any]) -> Steps[Verdict]:
        """Ask for the verdict of one text or conversation."""
        asked = {"text": value} if isinstance(value, str) else dict(value)
        content = orjson.dumps(asked)
        found = yield from self.ask(json_request("/v1/moderate", content))
        verdict: Verdict = orjson.loads(found.content)["verdict"]
        return verdict

    def detect(self, texts: str | Sequence[str], detectors: Sequence[str]) -> Steps[list[Mapping[str, Detection]]]:
        """Ask detectors about a text, or several."""
        asked = {"input": texts if isinstance(texts, str) else list(texts), "detectors": list(detectors)}
        found = yield from self.ask(json_request("/v1/detect", orjson.dumps(asked)))
        return [one["detections"] for one in orjson.loads(found.content)["results"]]

    def _submit(
        self, lines: Callable[[], Iterator[bytes]], options: JobOptions, how: SubmitOptions, *, is_repeatable: bool
    ) -> Steps[Job]:
        key = how.fingerprint.hex() if how.once and how.fingerprint else uuid.uuid4().hex
        headers = {"content-type": "application/jsonl", "content-encoding": "gzip", "idempotency-key": key}
        if how.callback_secret:
            headers["guardfleet-callback-secret"] = how.callback_secret
        send = Send("POST", "/v1/batches", _params(options, how), headers, lambda: _gzipped(lines()))
        found = yield from self.ask(send, is_repeatable=is_repeatable)
        return job_of(found.content)

    def ask(self, send: Send, *, is_repeatable: bool = True) -> Steps[httpx2.Response]:
        """Send until there is a final answer. Raises RejectedError for one that would be the same again, else RetryableError."""
        failures, deadline = 0, self._clock() + self._patience_s
        while True:
            said = yield send
            if isinstance(said, httpx2.Response):
                if said.is_success:
                    return said
                reason, asked_s = _message(said), retry_after_s(said.headers.get("retry-after", ""), now=time.time())
                if said.status_code == TOO_MANY:
                    pause_s = max(asked_s or 1.0, 0.1) * (1 + 0.25 * self._rng())
                elif said.status_code in NOT_NOW or _is_in_progress(said):
                    failures += 1
                    pause_s = max(asked_s or 0.0, backoff_s(failures, base_s=BASE_S, cap_s=CAP_S, random=self._rng))
                else:
                    raise (NotFoundError if said.status_code == MISSING else RejectedError)(reason)
            else:
                failures += 1
                reason = f"the API {_place(said)} did not answer ({type(said).__name__}): is it running, and is its URL right?"
                pause_s = backoff_s(failures, base_s=BASE_S, cap_s=CAP_S, random=self._rng)
            if not is_repeatable or failures >= ATTEMPTS or self._clock() + pause_s > deadline:
                raise RetryableError(reason)
            yield Wait(pause_s)


def _place(error: httpx2.TransportError | None) -> str:
    """Return the host and port that a request went to."""
    try:
        return error.request.url.netloc.decode("ascii") if error else ""
    except RuntimeError:  # an error that was made without a request
        return ""


def job_of(content: bytes) -> Job:
    """Parse an answer about a batch."""
    raw = orjson.loads(content)
    counts = raw["request_counts"]
    unrated = raw.get("severities", {}).get("unrated", 0)  # no failures here: who was asked has answered
    return Job(
        id=raw["id"],
        status=raw["status"],
        total=counts["total"],
        done=counts["completed"] + unrated,
        failed=counts["failed"] - unrated,
        texts_per_s=raw["texts_per_second"],
        eta_s=raw["eta_seconds"],
        callback_secret=raw.get("callback_secret"),
        raw=raw,
    )


def _lines(texts: Iterable[str | Mapping[str, Any]], columns: Columns) -> Iterator[bytes]:
    for number, value in enumerate(texts, 1):
        if columns != AS_NAMED:
            yield _refused_or_plain(number, columns.placed(value))
            continue
        try:
            yield _line({"text": value} if isinstance(value, str) else value)
        except (TypeError, ValueError, RecursionError):  # dates, UUIDs and other values that JSON lacks
            yield _refused_or_plain(number, columns.placed(value))


def _row_lines(rows: Iterator[Numbered]) -> Iterator[bytes]:
    """Yield rows as JSONL. A row keeps its number; one that is refused here is sent as its refusal."""
    reached = 0
    for number, row in rows:
        for done in range(reached, number - 1, CHUNK_BYTES):  # empty lines, so that rows keep their numbers
            yield b"\n" * min(CHUNK_BYTES, number - 1 - done)
        reached = number
        if isinstance(row, LineError):
            yield _line(line_of(row))
            continue
        yield _row_line(row)


def _refused_or_plain(number: int, value: object) -> bytes:
    """Return the line for a row of Python values, or its refusal if it is unusable."""
    try:
        return _row_line(row_of(number, value, max_text_bytes=sys.maxsize))  # the API limits the length of texts
    except LineError as error:
        return _line(line_of(error))


def _row_line(row: PayloadRow) -> bytes:
    content = {"text": row.content} if isinstance(row.content, str) else {"messages": row.content}
    metadata = {**(row.metadata or {}), NOTES: row.notes} if row.notes else row.metadata
    return _line({"id": row.id, **content} | ({} if metadata is None else {"metadata": metadata}))


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"  # in ASCII: a lone surrogate stays what it is


def _gzipped(lines: Iterator[bytes]) -> Iterator[bytes]:
    machine = zlib.compressobj(1, zlib.DEFLATED, 31)
    gathered = bytearray()
    for line in lines:
        gathered += machine.compress(line)
        if len(gathered) >= CHUNK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered) + machine.flush()


def json_request(path: str, content: bytes) -> Send:
    """Return a POST of JSON."""
    headers = {"content-type": "application/json"}
    return Send("POST", path, None, headers, lambda: iter((content,)))


def _params(options: JobOptions, how: SubmitOptions) -> dict[str, Any]:
    asked = options.model_dump(exclude_defaults=True) | {"name": options.name}
    for name in ("metadata", "webhook_metadata"):
        if name in asked:
            asked[name] = orjson.dumps(asked[name]).decode()
    return asked | ({"allow_empty": True} if how.allow_empty else {})


def _message(response: httpx2.Response) -> str:
    try:
        detail = orjson.loads(response.content)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = "no reason given"
    return f"the API answered {response.status_code}: {detail}"


def _is_in_progress(response: httpx2.Response) -> bool:
    return response.status_code == CONFLICT and response.headers.get("x-should-retry") != "false"

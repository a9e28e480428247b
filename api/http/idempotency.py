"""Make a repeated request create one thing only: by `Idempotency-Key`, or for retries that the openai SDK sends unasked.

That SDK repeats a POST whose answer it lost and marks it only by `x-stainless-retry-count`. So every request that creates something
is remembered by key, route and body for a quarter of an hour; a marked repeat gets what the first request created.

A body of streamed lines is unknown until it was read: its digest is recorded with what was created from it, and a repeat is read to
its end and compared before it is answered.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from fastapi import Request

from api.http.problems import ProblemError
from api.http.threads import in_thread
from guardfleet.errors import RetryableError
from guardfleet.store import idempotency
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database

KEY_CHARACTERS = 255
KEY_MEMORY_S = 86_400.0
RETRY_MEMORY_S = 900.0
SECRET_HEADER = "guardfleet-callback-secret"  # noqa: S105 - name of the header
ALIVE_S = idempotency.LEFT_S / 4  # between two renewals


def has_key(request: Request) -> bool:
    """Return whether the request has an idempotency key."""
    return "idempotency-key" in request.headers


@dataclass
class Once:
    """One request that creates something, in one transaction with what `recording` returns. An async context manager."""

    db: Database
    tenant_id: int
    key: bytes
    fingerprint: bytes
    memory_s: float
    is_keyed: bool
    earlier: str | None = None  # what the same request created before
    unmade: str | None = None  # what this request created and abandoned
    _earlier_body: bytes | None = None
    _fencing_token: int | None = None  # None: of two simultaneous requests without a key, the one that is not remembered
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def of(cls, request: Request, db: Database, caller: Caller, asked: bytes) -> Self:
        """Build from a request; `asked` are the bytes that identify it, besides the callback secret."""
        header = request.headers.get("idempotency-key")
        if header is not None and not (0 < len(header) <= KEY_CHARACTERS and header.isprintable()):
            detail = f"an Idempotency-Key must have 1 to {KEY_CHARACTERS} printable characters."
            raise ProblemError(400, "invalid_idempotency_key", detail)
        secret = request.headers.get(SECRET_HEADER)
        fingerprint = hashlib.sha256(asked if secret is None else b"%b\0%b" % (asked, secret.encode())).digest()
        name = header.encode() if header is not None else b"body/" + fingerprint
        whose = b"%d" % caller.key_id if header is None else b"tenant/%d" % caller.tenant_id  # its next key can retry
        retries = request.headers.get("x-stainless-retry-count", "0")
        is_first = header is None and retries in ("", "0")
        return cls(
            db,
            caller.tenant_id,
            hashlib.sha256(b"%s|%s|%s" % (whose, request.url.path.encode(), name)).digest(),
            fingerprint,
            memory_s=KEY_MEMORY_S if header is not None else 0.0 if is_first else RETRY_MEMORY_S,
            is_keyed=header is not None,
        )

    async def __aenter__(self) -> Self:
        known = await in_thread(
            idempotency.begin,
            self.db,
            tenant_id=self.tenant_id,
            key=self.key,
            fingerprint=self.fingerprint,
            memory_s=self.memory_s,
        )
        if isinstance(known, idempotency.Mine):
            self._fencing_token = known.token
            self._tasks.append(asyncio.create_task(self._stay(known.token)))
            return self
        if known is not None and known.fingerprint != self.fingerprint:
            raise _reused()
        if (known is None or known.subject is None) and (self.is_keyed or self.memory_s):
            raise ProblemError(409, "in_progress", "the same request is still being answered.", headers={"Retry-After": "1"})
        if known is not None:
            self.earlier, self._earlier_body = known.subject, known.body
        return self

    def require_same(self, body: bytes) -> None:
        """Raise ProblemError unless the earlier request had a body with this digest."""
        if self._earlier_body not in (body, None):  # None: recorded by the previous version, without the body
            raise _reused()

    def recording(self, body: bytes | None = None) -> Callable[[Any, str], None]:
        """Return a function that records a subject in the transaction that creates it; `body`: the digest of its lines."""
        token = self._fencing_token
        if token is None:
            return lambda connection, subject: None
        self._tasks[0].cancel()
        return lambda connection, subject: idempotency.settle(
            connection, tenant_id=self.tenant_id, key=self.key, token=token, subject=subject, body=body
        )

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        if self._fencing_token is not None and error is not None:
            await in_thread(
                idempotency.forget, self.db, tenant_id=self.tenant_id, key=self.key, token=self._fencing_token, unmade=self.unmade
            )

    async def _stay(self, token: int) -> None:
        """Keep the request alive, however long its body takes to arrive."""
        while True:
            await asyncio.sleep(ALIVE_S)
            with suppress(RetryableError):
                await in_thread(idempotency.renew, self.db, tenant_id=self.tenant_id, key=self.key, token=token)


def _reused() -> ProblemError:
    detail = "this Idempotency-Key was already used for a different request: use a new one."
    return ProblemError(422, "idempotency_key_reused", detail, headers={"x-should-retry": "false"})

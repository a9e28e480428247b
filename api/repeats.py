"""The same request twice makes one thing: by `Idempotency-Key`, and without one for the retries that the openai SDK sends unasked.

That SDK repeats a POST whose answer it lost and marks it only by `x-stainless-retry-count`. So every request that makes something
is remembered by key, route and body for a quarter of an hour; a marked repeat gets what the first one made.
"""

import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fastapi import Request

from api.context import Context, in_thread
from api.problems import ProblemError
from guardfleet.store import repeats
from guardfleet.store.keys import Caller

KEY_CHARACTERS = 255
KEY_MEMORY_S = 86_400.0
RETRY_MEMORY_S = 900.0


@dataclass
class Once:
    """One request that makes something. An async context manager; leaving it with `subject` set records what was made."""

    context: Context
    tenant_id: int
    key: bytes
    fingerprint: bytes
    memory_s: float
    is_keyed: bool
    earlier: str | None = None  # what the same request made before
    subject: str | None = None

    @classmethod
    def of(cls, request: Request, context: Context, caller: Caller, asked: bytes) -> Self:
        """The request, `asked` being all that makes it the same as another."""
        header = request.headers.get("idempotency-key")
        if header is not None and not 0 < len(header) <= KEY_CHARACTERS:
            raise ProblemError(400, "invalid_idempotency_key", f"an Idempotency-Key has 1 to {KEY_CHARACTERS} characters.")
        fingerprint = hashlib.sha256(asked).digest()
        name = header.encode() if header is not None else b"body/" + fingerprint
        retries = request.headers.get("x-stainless-retry-count", "0")
        is_first = header is None and retries in ("", "0")
        return cls(
            context,
            caller.tenant_id,
            hashlib.sha256(b"%d|%s|%s" % (caller.key_id, request.url.path.encode(), name)).digest(),
            fingerprint,
            memory_s=KEY_MEMORY_S if header is not None else 0.0 if is_first else RETRY_MEMORY_S,
            is_keyed=header is not None,
        )

    async def __aenter__(self) -> Self:
        known = await in_thread(
            repeats.begin,
            self.context.db,
            tenant_id=self.tenant_id,
            key=self.key,
            fingerprint=self.fingerprint,
            memory_s=self.memory_s,
        )
        if known is None:
            return self
        if known.fingerprint != self.fingerprint:
            detail = "this Idempotency-Key was used for another request."
            raise ProblemError(422, "idempotency_key_reused", detail, headers={"x-should-retry": "false"})
        if known.subject is None and (self.is_keyed or self.memory_s):
            raise ProblemError(409, "in_progress", "the same request is still being answered.", headers={"Retry-After": "1"})
        self.earlier = known.subject
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.subject is not None:
            await in_thread(repeats.settle, self.context.db, tenant_id=self.tenant_id, key=self.key, subject=self.subject)
        elif self.earlier is None and error is not None:
            await in_thread(repeats.forget, self.context.db, tenant_id=self.tenant_id, key=self.key)

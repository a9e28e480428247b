"""What every request needs: the database, the keys, and the caller."""

import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import anyio
from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase

from api.google.maps import Maps
from api.http.long_requests import Slots
from api.http.problems import ProblemError
from api.http.query import require_known
from api.http.rate_limit import Throttle
from api.http.threads import in_thread
from api.services.callback_check import Receivers
from api.services.file_ingestion import FileIntakes
from api.services.file_storage import Contents
from api.services.interactive_moderation import Online
from api.services.job_watch import Watching
from guardfleet.domain.actions import KEY
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit, keys
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.health import Health

KNOWN_S = 5.0  # a revoked key keeps working for this long
MOST_KNOWN = 10_000
BODY_THREADS = 8  # bodies that are decompressed, cut and written at once
DOWNLOAD_THREADS = 2  # pages of verdicts converted into files at once
PASSES = 2  # over stored verdicts at once, each with up to three connections
BEARER = HTTPBearer(scheme_name="key", description="`gf_...`, a key with the scope that the operation names.", auto_error=False)
NEWS_THREADS = 4  # pages read at once for callers that waited for them


@dataclass(frozen=True)
class Context:
    """What lives as long as the application."""

    db: Database
    keyring: Keyring
    settings: Settings
    contents: Contents
    throttle: Throttle
    file_intakes: FileIntakes
    online: Online
    receivers: Receivers
    watching: Watching
    bodies: Slots  # for bodies of lines and files
    downloads: Slots
    passes: Slots  # over stored verdicts: of policies, erasures, holds
    health: Health
    maps: Maps  # of the guard's scores to Perspective's
    known: dict[str, tuple[Caller, float]] = field(default_factory=dict)  # callers by key, and until when each is trusted
    body_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(BODY_THREADS))
    download_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(DOWNLOAD_THREADS))
    pass_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(PASSES))
    news_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(NEWS_THREADS))


def context_of(request: Request) -> Context:
    """Return the application's context."""
    found: Context = request.app.state.context
    return found


async def caller_of(request: Request, in_query: str | None = None) -> Caller:
    """Return the caller; 401 without a valid key. Keys are never logged, and taken from the URL only through `in_query`."""
    scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
    given = api_key if scheme.lower() == "bearer" else in_query
    if given:
        caller = await _authenticated(context_of(request), given.strip())
        if caller:
            request.state.caller = caller  # from here on its connection is kept (api/http/connections.py)
            audit.act_as(audit.Actor(KEY, caller.label, request.state.request_id))
            return caller
    raise ProblemError(
        401, "invalid_api_key", "send a valid key as `Authorization: Bearer gf_...`.", headers={"WWW-Authenticate": "Bearer"}
    )


async def admitted(request: Request, scope: str, in_query: str | None = None) -> Caller:
    """Return the caller if its key has the scope and is within its rate limit."""
    caller = await caller_of(request, in_query)
    if not caller.may(scope):
        detail = f"this key lacks the scope {scope}: create one that has it."
        raise ProblemError(403, "insufficient_scope", detail, headers={"x-should-retry": "false"})
    await context_of(request).throttle.count(request, caller)
    return caller


async def _authenticated(context: Context, api_key: str) -> Caller | None:
    """Return the key's owner, cached for a few seconds: a polling client sends the same key each time."""
    caller, until = context.known.get(api_key, (None, 0.0))
    if caller is not None and time.monotonic() < until:
        return caller
    caller = await in_thread(keys.authenticate, context.db, context.keyring, api_key)
    if len(context.known) >= MOST_KNOWN:
        context.known.clear()
    if caller is not None:
        context.known[api_key] = caller, time.monotonic() + KNOWN_S
    else:
        context.known.pop(api_key, None)
    return caller


async def _context_of(request: Request) -> Context:
    return context_of(request)  # awaited, because FastAPI runs functions that are not async in a thread


AppContext = Annotated[Context, Depends(_context_of)]


class Allowed(SecurityBase):
    """A dependency that admits callers whose key has a scope, and is described as such."""

    model, scheme_name = BEARER.model, BEARER.scheme_name

    def __init__(self, scope: str) -> None:
        self._scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Return the caller. Raises ProblemError 401, 403 and 429, and 400 for a parameter that the route does not have."""
        caller = await admitted(request, self._scope)
        require_known(request)
        return caller


def allowed(scope: str) -> Any:
    """Return the dependency for this scope."""
    return Security(Allowed(scope), scopes=[scope])


AuditReader = Annotated[Caller, allowed(keys.AUDIT)]
Eraser = Annotated[Caller, allowed(keys.ERASE)]
Holder = Annotated[Caller, allowed(keys.HOLD)]
BatchesReader = Annotated[Caller, allowed("batches:read")]
BatchesWriter = Annotated[Caller, allowed("batches:write")]
FilesReader = Annotated[Caller, allowed("files:read")]
FilesWriter = Annotated[Caller, allowed("files:write")]
ModerateCaller = Annotated[Caller, allowed("moderate")]
PoliciesReader = Annotated[Caller, allowed("policies:read")]
PoliciesWriter = Annotated[Caller, allowed("policies:write")]
WebhooksReader = Annotated[Caller, allowed("webhooks:read")]
WebhooksWriter = Annotated[Caller, allowed("webhooks:write")]

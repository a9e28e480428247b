"""What every request needs: the database, the keys, and who is asking."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.problems import ProblemError
from guardfleet.sealing import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.database import Database
from guardfleet.store.keys import Caller

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """Lives as long as the application."""

    db: Database
    keyring: Keyring
    settings: Settings


def context_of(request: Request) -> Context:
    """The application's context."""
    found: Context = request.app.state.context
    return found


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a store function, which blocks, beside the event loop: one store serves the API and the workers."""
    return await run_in_threadpool(function, *args, **kwargs)


async def caller_of(request: Request) -> Caller:
    """Who is asking; 401 without a valid key. The key is never in a log or a URL."""
    scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and api_key:
        context = context_of(request)
        caller = await in_thread(keys.authenticate, context.db, context.keyring, api_key.strip())
        if caller:
            return caller
    raise ProblemError(
        401, "invalid_api_key", "send a valid key as `Authorization: Bearer gf_...`.", headers={"WWW-Authenticate": "Bearer"}
    )


AppContext = Annotated[Context, Depends(context_of)]
ApiCaller = Annotated[Caller, Depends(caller_of)]

"""Pages of a list, in OpenAI's form."""

from collections.abc import Callable
from typing import Any, TypeVar

from api.http.problems import ProblemError
from api.http.threads import in_thread
from guardfleet.errors import NotFoundError
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database

V = TypeVar("V")


def page_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return a page of a list as OpenAI's object."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}


async def page_of_versions(
    read: Callable[..., list[V]],
    shown: Callable[[V], dict[str, Any]],
    db: Database,
    caller: Caller,
    *,
    after: str | None,
    limit: int,
    what: str,
) -> dict[str, Any]:
    """Return a page of the caller's versions, as `read` reads them, newest first.

    Raises ProblemError 400 if `after` is none of them; `what`: what they are.
    """
    try:
        found = await in_thread(read, db, caller.tenant_id, after=after, limit=limit + 1)
    except NotFoundError:
        raise ProblemError(400, "invalid_cursor", f"after is none of your {what}: take `last_id`.", param="after") from None
    return page_object([shown(each) for each in found[:limit]], has_more=len(found) > limit)

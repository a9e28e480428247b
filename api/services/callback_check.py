"""Receivers of webhooks, looked at when they are named: a mistake shows now, not with the first delivery.

A resolver that is slow for one tenant's names holds up no other: names are looked up in threads of their own, a few for each
tenant, and waited for without one. What is not known in time is taken: the address is checked again where the connection is made.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from guardfleet.security.ssrf import LOOK_UP_S, check_addresses, look_up, receiver_of, spelled

AT_ONCE = 4  # names of one tenant; one that never answers keeps its place until the resolver gives up
IN_ALL = 64


class Receivers:
    """What is being looked up for whom. To be used on one event loop."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = allowed
        self._looking: Counter[int] = Counter()  # names by tenant

    async def check(self, url: str, *, tenant_id: int, name: str = "url") -> str:
        """The URL, if events may go there as far as can be told now; raises RejectedError."""
        check_addresses(await self.addresses(url, tenant_id=tenant_id, name=name), self._allowed, name=name)
        return url

    async def addresses(self, url: str, *, tenant_id: int, name: str = "url") -> list[str]:
        """Where the URL leads, as far as is known in time; raises RejectedError for one that webhooks cannot be sent to."""
        host, port = receiver_of(url, name=name)
        found = spelled(host, port)
        return await self._looked_up(host, port, tenant_id) if found is None else found

    async def _looked_up(self, host: str, port: int, tenant_id: int) -> list[str]:
        """The addresses of a name; none where nothing is known in time."""
        if self._looking[tenant_id] >= AT_ONCE or self._looking.total() >= IN_ALL:
            return []
        self._looking[tenant_id] += 1
        found = asyncio.wrap_future(look_up(host, port))
        found.add_done_callback(lambda done: self._done(tenant_id, done))
        try:
            return await asyncio.wait_for(asyncio.shield(found), LOOK_UP_S)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            return []

    def _done(self, tenant_id: int, found: "asyncio.Future[list[str]]") -> None:
        if not found.cancelled():
            found.exception()  # looked at, though nobody waits for it any more
        self._looking[tenant_id] -= 1
        self._looking += Counter()  # without tenants that have none

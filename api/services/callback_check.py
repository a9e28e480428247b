"""Check the receivers of webhooks when they are named, so that a mistake shows now and not with the first delivery.

A slow resolver of one tenant's names delays no other tenant: names are resolved in threads of their own, a few per tenant, and
awaited. A name that is not resolved in time is accepted: the address is checked again when connecting.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from guardfleet.security.ssrf import LOOK_UP_S, check_addresses, look_up, receiver_of, spelled

AT_ONCE = 4  # names of one tenant; one that never resolves keeps its slot until the resolver gives up
IN_ALL = 64


class Receivers:
    """The pending look-ups, by tenant. For one event loop only."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = allowed
        self._looking: Counter[int] = Counter()  # pending names by tenant

    async def check(self, url: str, *, tenant_id: int, name: str = "url") -> str:
        """Return the URL if events may be sent there, as far as that is known now. Raises RejectedError."""
        check_addresses(await self.addresses(url, tenant_id=tenant_id, name=name), self._allowed, name=name)
        return url

    async def addresses(self, url: str, *, tenant_id: int, name: str = "url") -> list[str]:
        """Return the URL's addresses, as far as they resolve in time. Raises RejectedError for an unusable URL."""
        host, port = receiver_of(url, name=name)
        found = spelled(host, port)
        return await self._looked_up(host, port, tenant_id) if found is None else found

    async def _looked_up(self, host: str, port: int, tenant_id: int) -> list[str]:
        """Resolve a name; none if that takes too long."""
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
            found.exception()  # retrieve it, though nobody waits for it any more
        self._looking[tenant_id] -= 1
        self._looking += Counter()  # drop tenants without look-ups

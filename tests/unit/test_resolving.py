"""Names of receivers: a resolver that is slow for one tenant delays nobody else, and each address of a name is tried in turn."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpcore2
import pytest

from api.services import callback_check
from api.services.callback_check import Receivers
from guardfleet.errors import RejectedError
from tests.services.patience import patience
from tests.services.receiver import raw_server
from worker.webhooks.egress import CheckedBackend, RefusedAddressError

Names = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """A resolver that knows some names, and is silent about all others until the test ends."""
    known: dict[str, tuple[str, ...]] = {}
    over, real = threading.Event(), socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, flags: int = 0, **kwargs: Any) -> list[Any]:
        if flags & socket.AI_NUMERICHOST or host.replace(".", "").isdigit():
            return real(host, port, *args, flags=flags, **kwargs)
        if host not in known:
            over.wait(patience(60))
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield lambda name, *addresses: known.update({name: addresses})
    over.set()


def test_a_slow_resolver_holds_up_its_own_tenant_alone_and_that_not_for_long(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback_check, "LOOK_UP_S", 0.2)
    names("inside.example", "10.0.0.1")
    names("outside.example", "93.184.216.34")

    async def run() -> None:
        checked = Receivers([])
        before = threading.active_count()
        slow = [asyncio.create_task(checked.check(f"https://slow{i}.example/", tenant_id=1)) for i in range(60)]
        await asyncio.sleep(0)
        assert threading.active_count() - before <= callback_check.AT_ONCE
        with pytest.raises(RejectedError):
            await checked.check("https://inside.example/x", tenant_id=2)
        assert not slow[0].done()
        assert await checked.check("https://outside.example/x", tenant_id=2) == "https://outside.example/x"
        assert len(await asyncio.gather(*slow)) == 60  # taken: they are checked where they are connected to
        for spelled in ("https://2130706433/", "http://[::1]/", "http://0x7f.1/"):
            with pytest.raises(RejectedError):
                await checked.check(spelled, tenant_id=1)

    asyncio.run(run())


def connected(addresses: tuple[str, ...], names: Names, port: int, *, allowed: tuple[str, ...] = ("127.0.0.0/8",)) -> str:
    """The address that was connected to."""
    names("receiver.example", *addresses)
    stream = CheckedBackend(allowed, limit_s=5.0).connect_tcp("receiver.example", port)
    try:
        return str(stream.get_extra_info("server_addr")[0])
    finally:
        stream.close()


def test_every_address_of_a_receiver_is_tried_in_turn(names: Names) -> None:
    url, close = raw_server(lambda wire: None)
    port = int(url.rstrip("/").rsplit(":", 1)[1])
    try:
        assert connected(("127.0.0.1",), names, port) == "127.0.0.1"
        assert connected(("127.0.0.2", "127.0.0.1"), names, port) == "127.0.0.1"
        assert connected(("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.1"), names, port) == "127.0.0.1"
        with pytest.raises(httpcore2.ConnectError):
            connected(("127.0.0.2", "127.0.0.3"), names, port)
        with pytest.raises(httpcore2.ConnectError):
            connected((), names, port)
        with pytest.raises(RefusedAddressError):  # one that is refused refuses the name, wherever it stands
            connected(("127.0.0.1", "10.0.0.1"), names, port)
    finally:
        close()

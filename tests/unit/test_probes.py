"""The probe port: each is answered, whatever another client does."""

import contextlib
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from guardfleet.telemetry import probes
from guardfleet.telemetry.health import Health
from guardfleet.telemetry.probes import ProbeServer
from tests.services.fleet import until


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a process that is well."""
    health = Health()
    health.ready()
    server = ProbeServer("127.0.0.1", 0, health=health, registry=CollectorRegistry())
    server.start()
    yield server.port
    server.stop()


def ended(wire: socket.socket) -> bool:
    try:
        return wire.recv(1) == b""
    except ConnectionError:
        return True


def live(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10) as answer:
        body: bytes = answer.read()
    return body


@pytest.mark.parametrize("said", [b"", b"GET /livez", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nx: y\r\n"])
def test_silent_clients_cost_no_other_its_answer(port: int, said: bytes) -> None:
    with contextlib.ExitStack() as open_ones:
        for _ in range(probes.MOST + 8):
            wire = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
            with contextlib.suppress(OSError):  # the oldest have made room
                wire.sendall(said)
        assert live(port) == b"ok\n"


def test_a_connection_is_not_kept_for_ever(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ANSWERED_IN_S", 0.1)
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(b"GET /livez")
        wire.settimeout(10)
        until(lambda: ended(wire), what="the end of it")


def test_a_client_that_goes_away_is_not_news(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.sendall(b"GET /liv")
    assert live(port) == b"ok\n"
    assert capfd.readouterr().err == ""

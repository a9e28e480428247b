"""Connections: those that send nothing, or hardly anything, are closed in time and never delay another's answer."""

import json
import pathlib
import socket
from collections.abc import Iterator

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.patience import patience
from tests.services.served import served
from tests.services.wire import answer, get, opened

PATIENCE_S = patience(20.0)


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, api_max_connections=10, api_head_s=1.0, api_pause_s=0.5
    )


@pytest.fixture
def address(api_settings: Settings) -> Iterator[tuple[str, int]]:
    with served(api_settings) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def test_connections_that_say_nothing_make_room_for_one_that_does(address: tuple[str, int]) -> None:
    idle = [opened(address) for _ in range(40)]
    assert answer(opened(address, get("/livez", "Connection: close"))).startswith(b"HTTP/1.1 200")
    assert [answer(wire) for wire in idle] == [b""] * 40  # the last ones by the time for a head


def test_a_request_under_way_is_not_closed_for_others(address: tuple[str, int], db: Database, keyring: Keyring) -> None:
    key = keys.create(db, keyring, name="k")
    head = f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n".encode()
    slow = opened(address, head + b"Content-Type: application/jsonl\r\nContent-Length: 25\r\nExpect: 100-continue\r\n\r\n")
    assert slow.recv(100).startswith(b"HTTP/1.1 100"), "the body is waited for"
    others = [opened(address) for _ in range(30)]
    slow.sendall(b'{"id": "a", "text": "xx"}')
    assert answer(slow).startswith(b"HTTP/1.1 200")
    for wire in others:
        wire.close()


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1alpha1/comments:analyze", "/v1/files", "/livez"])
def test_bodies_without_a_key_keep_nobody_from_an_answer(address: tuple[str, int], path: str) -> None:
    head = get(path, "Content-Type: application/json", "Content-Length: 65000", "Authorization: Bearer gf_x")
    crowd = [opened(address, head.replace(b"GET", b"POST") + b"{") for _ in range(40)]
    assert answer(opened(address, get("/livez", "Connection: close"))).startswith(b"HTTP/1.1 200")
    for wire in crowd:
        wire.close()


def test_a_body_is_waited_for_only_with_a_key(address: tuple[str, int]) -> None:
    wire = opened(address, get("/v1/moderations", "Content-Length: 65000").replace(b"GET", b"POST"))
    assert wire.recv(12) == b"HTTP/1.1 401"
    wire.close()


def test_answers_that_nobody_reads_keep_nobody_from_one(address: tuple[str, int]) -> None:
    crowd = [opened(address, get("/openapi.json") * 100, reads=False) for _ in range(15)]
    assert answer(opened(address, get("/livez", "Connection: close"))).startswith(b"HTTP/1.1 200")
    for wire in crowd:
        wire.close()


def test_a_head_that_comes_byte_by_byte_is_closed_in_time(address: tuple[str, int]) -> None:
    with opened(address, b"GET /livez HTTP/1.1\r\n") as wire:
        until(lambda: is_closed(wire), timeout_s=PATIENCE_S, what="the end of the connection")


def is_closed(wire: socket.socket) -> bool:
    """Send another byte; whether the other side has ended."""
    wire.settimeout(0.1)
    try:
        wire.sendall(b"a")
        return wire.recv(1) == b""
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_a_kept_connection_is_closed_in_time_too(address: tuple[str, int]) -> None:
    wire = opened(address, get("/livez"))
    wire.recv(9)
    wire.sendall(b"GET /livez HT")
    assert answer(wire).count(b"HTTP/1.1") == 0  # what is left of the first answer, and no more


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/moderations", "/v1/files"])
def test_a_body_that_hardly_comes_is_refused(address: tuple[str, int], db: Database, keyring: Keyring, path: str) -> None:
    kind = {"/v1/batches": "application/jsonl", "/v1/files": "multipart/form-data; boundary=e"}.get(path, "application/json")
    said = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {keys.create(db, keyring, name='k')}"]
    wire = opened(address, "\r\n".join([*said, f"Content-Type: {kind}", "Content-Length: 90000", "", "--e\r\n"]).encode())
    head, _, body = answer(wire).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "too_slow"


def test_a_body_of_two_lengths_is_refused_and_its_connection_closed(address: tuple[str, int]) -> None:
    head = get("/v1/batches", "Content-Length: 3", "Transfer-Encoding: chunked").replace(b"GET", b"POST")
    said = answer(opened(address, head + b"0\r\n\r\n" + get("/livez")))
    assert said.startswith(b"HTTP/1.1 400")
    assert b"invalid_framing" in said
    assert said.count(b"HTTP/1.1") == 1

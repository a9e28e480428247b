"""What receivers do to a sender: hang, drip, flood, reset, redirect, show an old certificate; and how little that delays others."""

import datetime as dt
import json
import pathlib
import random
import socket
import ssl
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook

from guardfleet.security import ssrf
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.events import deliveries, endpoints
from guardfleet.store.postgres.database import Database
from tests.services.judged import SAFE, UNSAFE
from tests.services.receiver import Receiver, drip, flood, hang, raw_server, receiver, reset
from tests.services.stored import finish, scalar, submit, took
from tests.services.webhooks import deliver, due, endpoint, happened, send, settings
from worker.webhooks.delivery import Deliverer, make_pool

__all__ = ["deliver", "receiver", "settings"]


@pytest.mark.parametrize(
    ("say", "status", "error"),
    [
        (lambda c: drip(c, b""), None, "RemoteProtocolError|ReadTimeout"),
        (lambda c: drip(c, b"HTTP/1.1 200 OK\r\nx-long: "), None, "ReadTimeout"),
        (lambda c: drip(c, b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n"), 200, None),
        (hang, None, "ReadTimeout"),
        (flood, 200, None),
        (reset, None, "ConnectError|ReadError|WriteError|RemoteProtocolError"),
        (lambda c: c.sendall(b"SSH-2.0-x\r\n"), None, "RemoteProtocolError|ReadError"),
        (lambda c: (c.recv(65_536), c.sendall(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n")), 302, None),
    ],
    ids=["drip of nothing", "drip of a header", "drip of a body", "hang", "flood", "reset", "other protocol", "redirect"],
)
def test_a_bad_receiver_takes_bounded_time(
    db: Database, keyring: Keyring, deliver: Deliverer, say: Callable[[socket.socket], None], status: int | None, error: str | None
) -> None:
    url, close = raw_server(say)
    try:
        outcome = send(db, deliver, endpoint(db, keyring, url)[0])
        assert outcome.status == status
        if error is not None or status is None:
            assert outcome.error in (error or "").split("|")
    finally:
        close()


def test_an_expired_certificate_is_refused(db: Database, keyring: Keyring, deliver: Deliverer, tmp_path: pathlib.Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(past).not_valid_after(past + dt.timedelta(days=1))
    pem = tmp_path / "cert.pem"
    pem.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    url, close = raw_server(lambda c: c.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), context)
    try:
        outcome = send(db, deliver, endpoint(db, keyring, url)[0])
        assert (outcome.status, outcome.error) == (None, "ConnectError")
    finally:
        close()


def test_a_name_that_leads_elsewhere_the_second_time_is_refused(
    db: Database, keyring: Keyring, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = receiver.server.server_port
    closed = settings.but(webhook_allow_networks=())
    answers = iter(["93.184.216.34", "127.0.0.1"])

    def rebinding(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    made, _ = endpoint(db, keyring, f"http://rebinding.example:{port}/")
    monkeypatch.setattr(ssrf.socket, "getaddrinfo", rebinding)
    assert ssrf.is_allowed(str(rebinding()[0][4][0]), [])  # type: ignore[index]  # at registration
    pool = make_pool(closed.webhooks)
    outcome = send(db, Deliverer(db, keyring, closed.webhooks, closed.tuning, pool, time.time, random.random, lambda s: None), made)
    assert "private or reserved" in str(outcome.error)
    assert receiver.got == []
    pool.close()


def test_both_secrets_sign_for_a_while(db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver) -> None:
    made, old = endpoint(db, keyring, receiver.url)
    _, new = endpoints.rotate(db, keyring, made.public_id, tenant_id=1, overlap_s=60)
    send(db, deliver, made)
    ((headers, body),) = receiver.got
    for secret in (old, new):
        assert Webhook(secret).verify(body, headers)["type"] == "batch.completed"
    _, newest = endpoints.rotate(db, keyring, made.public_id, tenant_id=1, overlap_s=0)
    send(db, deliver, made)
    headers, body = receiver.got[1]
    assert len(headers["webhook-signature"].split()) == 1
    Webhook(newest).verify(body, headers)


def test_a_receiver_says_when_to_come_back(db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver) -> None:
    made, _ = endpoint(db, keyring, receiver.url)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
    for value, least, most in (
        ("120", 119, 121), ("3", 6, 8), (soon.strftime("%a, %d %b %Y %H:%M:%S GMT"), 7100, 7300), ("nonsense", 6, 8),
        ("99999999", 86_000, 86_500),
    ):  # fmt: skip
        receiver.answer = lambda n, value=value: (429, {"retry-after": value})  # type: ignore[misc]
        (delivery,) = happened(db, made)
        deliver(delivery)
        wait = scalar(db, f"select extract(epoch from next_attempt_at - now()) from delivery where id = {delivery}")
        assert least < wait < most, value


def test_days_of_failures_disable_an_endpoint_and_one_success_forgets_them(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver
) -> None:
    made, _ = endpoint(db, keyring, receiver.url)
    receiver.answer = lambda n: (500, {}) if n != 2 else (200, {})
    first, second, third, waiting = happened(db, made, 4)
    with db.begin() as connection:  # each has a message of its own: no sender goes on with the next by itself
        connection.execute("update delivery set published_at = now()")
    deliver(first)
    assert endpoints.get(db, made.public_id, tenant_id=1).failing_since is not None
    deliver(second)
    assert endpoints.get(db, made.public_id, tenant_id=1).failing_since is None
    deliver(third)
    with db.begin() as connection:
        connection.execute("update endpoint set failing_since = now() - interval '6 days'")
        connection.execute(f"update delivery set next_attempt_at = now() where id = {third}")
    deliver(third)
    found = endpoints.get(db, made.public_id, tenant_id=1)
    assert (found.enabled, found.disabled_reason) == (False, "every delivery failed for 5 days")
    assert scalar(db, f"select state from delivery where id = {waiting}") == 3
    assert due(db) == []
    endpoints.update(db, made.public_id, tenant_id=1, changes={"enabled": True})
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    assert endpoints.resend(db, made.public_id, tenant_id=1, since=yesterday) == 3
    assert waiting in due(db)


def test_those_who_listen_hear_of_progress_and_of_unsafe_texts(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver
) -> None:
    from guardfleet.store import verdicts
    from guardfleet.verdicts.cursors import unpack

    endpoint(db, keyring, receiver.url, ("batch.progress", "verdict.flagged"))
    job = submit(db, keyring, 40, shard_texts=4)
    for no in range(10):
        finish(db, took(db, job, no), UNSAFE if no == 3 else SAFE)
    while deliveries.relay(db, deliveries.events(db)):
        pass
    while waiting := due(db):
        for delivery in waiting:
            deliver(delivery)
    events = [json.loads(body) for _, body in receiver.got]
    progress = sorted(event["data"]["done"] for event in events if event["type"] == "batch.progress")
    assert progress == [4, 8, 12, 16, 20, 24, 28, 32, 36]
    (flagged,) = (event["data"] for event in events if event["type"] == "verdict.flagged")
    assert flagged["unsafe"] == 4
    cursor = unpack(flagged["after"], job_id=job.id, keys=keyring.cursor_keys)
    assert [row.seq for row in verdicts.page(db, job, cursor, limit=4).rows] == [12, 13, 14, 15]
    assert len({event["id"] for event in events}) == 10

"""Keys, encrypted blobs and signatures."""

import pytest
from standardwebhooks import Webhook

from guardfleet.errors import ConfigurationError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.security.signing import is_secret, new_secret, sign


def test_a_key_of_the_wrong_length_is_refused() -> None:
    for bad in ("short", "!!", ""):
        with pytest.raises(ConfigurationError, match="keys secret"):
            Keyring(bad)


def test_a_sealed_blob_opens_only_in_its_place_and_with_its_key() -> None:
    ring, rows = Keyring(new_secret_key()), [PayloadRow("1", "x")]
    key = ring.new_data_key()
    blob = ring.encrypt_rows(key, rows, job_id=1, shard_no=2)
    for ring_, key_, place in ((ring, key, (1, 3)), (ring, key, (2, 2)), (ring, ring.new_data_key(), (1, 2))):
        with pytest.raises(ConfigurationError, match="cannot be decrypted"):
            ring_.decrypt_rows(key_, blob, job_id=place[0], shard_no=place[1])
    with pytest.raises(ConfigurationError, match="cannot be decrypted"):
        Keyring(new_secret_key()).decrypt_rows(key, blob, job_id=1, shard_no=2)
    with pytest.raises(ConfigurationError, match="unknown version"):
        ring.decrypt_rows(key, b"\x09" + blob[1:], job_id=1, shard_no=2)


def test_signatures_are_those_of_the_scheme() -> None:
    secret, body = new_secret(), b'{"a": 1}'
    import time

    headers = sign([new_secret(), secret], event_id="evt_1", timestamp_s=int(time.time()), body=body)
    assert Webhook(secret).verify(body, headers) == {"a": 1}


def test_the_golden_signature() -> None:
    headers = sign(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_that_some_reader_would_refuse_are_none() -> None:
    assert is_secret(new_secret())
    for bad in ("whsec_" + "a" * 31, "whsec_abc", "a" * 32, "whsec_????", "whsec_" + "a" * 200):
        assert not is_secret(bad)

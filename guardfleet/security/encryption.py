"""Encryption of texts and secrets in PostgreSQL, and digests that compare texts without storing them.

One secret key per installation; everything else is derived from it (HKDF-SHA256, one label per use). Each job has a data key
of its own, wrapped by the key-encryption key: deleting the wrapped key makes the job's texts unreadable, in backups too.
"""

import base64
import hashlib
import hmac
import json
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from guardfleet.errors import ConfigurationError
from guardfleet.rows import payload
from guardfleet.rows.payload import PayloadRow
from guardfleet.settings import Settings

T = TypeVar("T")
KEY_BYTES = 32
NONCE_BYTES = 12  # random 96-bit nonces: safe for 2^32 encryptions per key (NIST SP 800-38D); a job has far fewer shards
VERSION = b"\x01"
OVERHEAD_BYTES = len(VERSION) + NONCE_BYTES + 16  # what encryption adds: version, nonce, tag
ROWS = "zlib-json"  # the kind of a shard's encrypted texts


def new_secret_key() -> str:
    """Return a new installation key: 32 random bytes, URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Root:
    """The keys derived from one secret key."""

    key_id: str  # reveals nothing about the key
    wrap: AESGCM
    digest_key: bytes
    api_key_pepper: bytes
    cursor_key: bytes
    receipt_key: bytes

    @classmethod
    def of(cls, secret_key: str, *, name: str = "GUARDFLEET_SECRET_KEY") -> "Root":
        """Derive the keys. Raises ConfigurationError."""
        try:
            root = base64.urlsafe_b64decode(secret_key)
        except ValueError as error:
            raise ConfigurationError(f"{name} is not base64: make a new one with `guardfleet keys secret`.") from error
        if len(root) < KEY_BYTES:
            raise ConfigurationError(f"{name} has {len(root)} bytes, {KEY_BYTES} are needed: run `guardfleet keys secret`.")
        return cls(
            hashlib.sha256(_derive(root, b"guardfleet/key-id")).hexdigest()[:12],
            AESGCM(_derive(root, b"guardfleet/kek")),
            _derive(root, b"guardfleet/digest"),
            _derive(root, b"guardfleet/api-key"),
            _derive(root, b"guardfleet/cursor"),
            _derive(root, b"guardfleet/receipt"),
        )


class Keyring:
    """The installation's keys: of its secret key and, during a rotation, of the previous one.

    Either decrypts. Encryption uses the one that the installation's pin names; `follow` sets it.
    """

    def __init__(self, secret_key: str, previous: str | None = None) -> None:
        self._newest = Root.of(secret_key)
        self._roots = {self._newest.key_id: self._newest}
        if previous is not None:
            root = Root.of(previous, name="GUARDFLEET_PREVIOUS_SECRET_KEY")
            self._roots.setdefault(root.key_id, root)
        self._current = self._newest

    @classmethod
    def of(cls, settings: Settings) -> "Keyring":
        """Build the keyring from the settings. Raises ConfigurationError."""
        previous = settings.previous_secret_key
        return cls(settings.required("secret_key"), previous.get_secret_value() if previous else None)

    @property
    def key_id(self) -> str:
        """The id of the key that encrypts."""
        return self._current.key_id

    @property
    def newest_id(self) -> str:
        """The id of `secret_key`, whatever is pinned."""
        return self._newest.key_id

    def opens(self, key_id: str) -> bool:
        """Return whether the keyring has this key."""
        return key_id in self._roots

    def follow(self, key_id: str) -> None:
        """Encrypt with this key from now on; the keyring must have it."""
        self._current = self._roots[key_id]

    @property
    def cursor_keys(self) -> list[bytes]:
        """The key that signs cursors first, then others that may have signed one."""
        return [root.cursor_key for root in self._each()]

    def rewrap(self, wrapped_key: bytes) -> bytes:
        """Return the same data key, wrapped by the current key."""
        return _encrypt(self._current.wrap, self._unwrap(wrapped_key, b"data-key"), b"data-key")

    def new_data_key(self) -> bytes:
        """Return a new data key, wrapped for storage."""
        return _encrypt(self._current.wrap, secrets.token_bytes(KEY_BYTES), b"data-key")

    def encrypt_rows(self, wrapped_key: bytes, rows: Sequence[PayloadRow], *, job_id: int, shard_no: int) -> bytes:
        """Compress and encrypt the rows of one shard; bound to its job and number, so blobs cannot be swapped."""
        plain = payload.dumped(rows)
        return _encrypt(self._data_key(wrapped_key), _packed(plain), _associated_data(job_id, shard_no, ROWS))

    def decrypt_rows(self, wrapped_key: bytes, blob: bytes, *, job_id: int, shard_no: int) -> list[PayloadRow]:
        """Decrypt what `encrypt_rows` made. Raises ConfigurationError if key and blob do not belong together."""
        return self._opened(wrapped_key, blob, _associated_data(job_id, shard_no, ROWS), payload.loaded)

    def seal(self, wrapped_key: bytes, value: Any, *, kind: str, job_id: int, shard_no: int) -> bytes:
        """Compress and encrypt a JSON value, bound to its kind and to one shard."""
        plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _encrypt(self._data_key(wrapped_key), _packed(plain), _associated_data(job_id, shard_no, kind))

    def open(self, wrapped_key: bytes, blob: bytes, *, kind: str, job_id: int, shard_no: int) -> Any:
        """Decrypt what `seal` made. Raises ConfigurationError if key and blob do not belong together."""
        return self._opened(wrapped_key, blob, _associated_data(job_id, shard_no, kind), json.loads)

    def encrypt_bytes(self, wrapped_key: bytes, plain: bytes, *, associated_data: bytes) -> bytes:
        """Encrypt bytes as they are, bound to `associated_data`."""
        return _encrypt(self._data_key(wrapped_key), plain, associated_data)

    def decrypt_bytes(self, wrapped_key: bytes, sealed: bytes, *, associated_data: bytes) -> bytes:
        """Decrypt what `encrypt_bytes` made. Raises ConfigurationError if key, associated_data and bytes do not belong together."""
        return _decrypt(self._data_key(wrapped_key), sealed, associated_data)

    def encrypt_secret(self, value: str) -> bytes:
        """Encrypt a small secret (a webhook's) for its column."""
        return _encrypt(self._current.wrap, value.encode(), b"secret")

    def decrypt_secret(self, sealed: bytes) -> str:
        """Decrypt what `encrypt_secret` made."""
        return self._unwrap(sealed, b"secret").decode()

    def digest(self, tenant_id: int, content: str | list[dict[str, str]]) -> bytes:
        """Return 16 bytes that are equal for equal contents of one tenant and reveal nothing without the key."""
        plain = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        kind = b"t" if isinstance(content, str) else b"m"
        message = b"%d|%s|" % (tenant_id, kind) + plain.encode("utf-8", "surrogatepass")
        return hmac.digest(self._current.digest_key, message, "sha256")[:16]

    def receipt_digest(self, tenant_id: int, target: str) -> bytes:
        """Return what a receipt keeps of a target: equal for equal ones of a tenant, and nothing without the key."""
        return hmac.digest(self._current.receipt_key, b"%d|" % tenant_id + target.encode("utf-8", "surrogatepass"), "sha256")

    def api_key_digests(self, api_key: str) -> list[bytes]:
        """Return the digests under which an API key may be stored, the current key's first."""
        return [hmac.digest(root.api_key_pepper, api_key.encode(), "sha256") for root in self._each()]

    def _opened(self, wrapped_key: bytes, blob: bytes, associated_data: bytes, read: Callable[[str], T]) -> T:
        try:
            return read(
                zlib.decompress(_decrypt(self._data_key(wrapped_key), blob, associated_data)).decode("utf-8", "surrogatepass")
            )
        except RecursionError:
            raise ConfigurationError("an encrypted value is nested deeper than this version reads.") from None
        except (zlib.error, ValueError, TypeError) as error:
            raise ConfigurationError("an encrypted value is damaged.") from error

    def _data_key(self, wrapped: bytes) -> AESGCM:
        return AESGCM(self._unwrap(wrapped, b"data-key"))

    def _unwrap(self, sealed: bytes, associated_data: bytes) -> bytes:
        first, *others = self._each()
        for root in others:
            try:
                return _decrypt(root.wrap, sealed, associated_data)
            except ConfigurationError:
                continue
        return _decrypt(first.wrap, sealed, associated_data)

    def _each(self) -> list[Root]:
        return sorted(self._roots.values(), key=lambda root: root is not self._current)


def _derive(root: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label).derive(root)


def _associated_data(job_id: int, shard_no: int, kind: str) -> bytes:
    return b"%d/%d/%s" % (job_id, shard_no, kind.encode())


def _packed(plain: str) -> bytes:
    return zlib.compress(plain.encode("utf-8", "surrogatepass"), 1)  # surrogatepass: keep a lone surrogate as it came


def _encrypt(key: AESGCM, plain: bytes, associated_data: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return VERSION + nonce + key.encrypt(nonce, plain, associated_data)


def _decrypt(key: AESGCM, blob: bytes, associated_data: bytes) -> bytes:
    if blob[:1] != VERSION:
        raise ConfigurationError("an encrypted value has an unknown version: a newer guardfleet wrote it.")
    try:
        return key.decrypt(blob[1 : 1 + NONCE_BYTES], blob[1 + NONCE_BYTES :], associated_data)
    except InvalidTag as error:
        raise ConfigurationError("an encrypted value cannot be decrypted: was secret_key changed?") from error

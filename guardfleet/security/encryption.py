"""Sealing: how texts and secrets rest in Postgres, and how texts are compared without being kept.

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
NONCE_BYTES = 12  # random 96-bit nonces: safe for 2^32 seals a key (NIST SP 800-38D); a job has far fewer shards
VERSION = b"\x01"
OVERHEAD_BYTES = len(VERSION) + NONCE_BYTES + 16  # what sealing adds: version, nonce, tag
ROWS = "zlib-json"  # what the texts of a shard are sealed as


def new_secret_key() -> str:
    """A fresh installation key: 32 random bytes, URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Root:
    """What is derived from one secret key."""

    key_id: str  # tells nothing of the key
    wrap: AESGCM
    digest_key: bytes
    api_key_pepper: bytes
    cursor_key: bytes

    @classmethod
    def of(cls, secret_key: str, *, name: str = "secret_key") -> "Root":
        """Derive; raises ConfigurationError."""
        try:
            root = base64.urlsafe_b64decode(secret_key)
        except ValueError as error:
            raise ConfigurationError(f"{name} is not base64: make one with `guardfleet keys secret`.") from error
        if len(root) < KEY_BYTES:
            raise ConfigurationError(f"{name} has {len(root)} bytes, {KEY_BYTES} are needed: `guardfleet keys secret`.")
        return cls(
            hashlib.sha256(_derive(root, b"guardfleet/key-id")).hexdigest()[:12],
            AESGCM(_derive(root, b"guardfleet/kek")),
            _derive(root, b"guardfleet/digest"),
            _derive(root, b"guardfleet/api-key"),
            _derive(root, b"guardfleet/cursor"),
        )


class Keyring:
    """The keys of the installation: of its secret key and, while that is rotated, of the one before.

    Either opens; what is written is under the one that the installation's pin names, which `follow` is told.
    """

    def __init__(self, secret_key: str, previous: str | None = None) -> None:
        self._newest = Root.of(secret_key)
        self._roots = {self._newest.key_id: self._newest}
        if previous is not None:
            root = Root.of(previous, name="previous_secret_key")
            self._roots.setdefault(root.key_id, root)
        self._current = self._newest

    @classmethod
    def of(cls, settings: Settings) -> "Keyring":
        """As the settings have it; raises ConfigurationError."""
        previous = settings.previous_secret_key
        return cls(settings.required("secret_key"), previous.get_secret_value() if previous else None)

    @property
    def key_id(self) -> str:
        """Of the key that is written under."""
        return self._current.key_id

    @property
    def newest_id(self) -> str:
        """Of `secret_key`, whatever is pinned."""
        return self._newest.key_id

    def opens(self, key_id: str) -> bool:
        """Whether it has this key."""
        return key_id in self._roots

    def follow(self, key_id: str) -> None:
        """Write under this key from now on; it has to be one of them."""
        self._current = self._roots[key_id]

    @property
    def cursor_keys(self) -> list[bytes]:
        """What signs cursors first, then what else may have signed one."""
        return [root.cursor_key for root in self._each()]

    def rewrap(self, wrapped_key: bytes) -> bytes:
        """The same data key, wrapped by the current key."""
        return _encrypt(self._current.wrap, self._unwrap(wrapped_key, b"data-key"), b"data-key")

    def new_data_key(self) -> bytes:
        """A fresh job key, wrapped for storage."""
        return _encrypt(self._current.wrap, secrets.token_bytes(KEY_BYTES), b"data-key")

    def encrypt_rows(self, wrapped_key: bytes, rows: Sequence[PayloadRow], *, job_id: int, shard_no: int) -> bytes:
        """Compress and encrypt the rows of one shard; bound to its job and number, so blobs cannot be swapped."""
        plain = payload.dumped(rows)
        return _encrypt(self._data_key(wrapped_key), _packed(plain), _place(job_id, shard_no, ROWS))

    def decrypt_rows(self, wrapped_key: bytes, blob: bytes, *, job_id: int, shard_no: int) -> list[PayloadRow]:
        """The inverse of `encrypt_rows`; raises ConfigurationError when key and blob do not belong together."""
        return self._opened(wrapped_key, blob, _place(job_id, shard_no, ROWS), payload.loaded)

    def seal(self, wrapped_key: bytes, value: Any, *, kind: str, job_id: int, shard_no: int) -> bytes:
        """Compress and encrypt what JSON can hold, bound to its kind and to one shard."""
        plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _encrypt(self._data_key(wrapped_key), _packed(plain), _place(job_id, shard_no, kind))

    def open(self, wrapped_key: bytes, blob: bytes, *, kind: str, job_id: int, shard_no: int) -> Any:
        """The inverse of `seal`; raises ConfigurationError when key and blob do not belong together."""
        return self._opened(wrapped_key, blob, _place(job_id, shard_no, kind), json.loads)

    def encrypt_bytes(self, wrapped_key: bytes, plain: bytes, *, place: bytes) -> bytes:
        """Encrypt bytes as they are, bound to `place`."""
        return _encrypt(self._data_key(wrapped_key), plain, place)

    def decrypt_bytes(self, wrapped_key: bytes, sealed: bytes, *, place: bytes) -> bytes:
        """The inverse of `encrypt_bytes`; raises ConfigurationError when key, place and bytes do not belong together."""
        return _decrypt(self._data_key(wrapped_key), sealed, place)

    def encrypt_secret(self, value: str) -> bytes:
        """Encrypt a small secret (a webhook's) for its column."""
        return _encrypt(self._current.wrap, value.encode(), b"secret")

    def decrypt_secret(self, sealed: bytes) -> str:
        """The inverse of `encrypt_secret`."""
        return self._unwrap(sealed, b"secret").decode()

    def digest(self, tenant_id: int, content: str | list[dict[str, str]]) -> bytes:
        """16 bytes that are equal for equal contents of one tenant, and tell nothing to who lacks the key."""
        plain = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        kind = b"t" if isinstance(content, str) else b"m"
        message = b"%d|%s|" % (tenant_id, kind) + plain.encode("utf-8", "surrogatepass")
        return hmac.digest(self._current.digest_key, message, "sha256")[:16]

    def api_key_digests(self, api_key: str) -> list[bytes]:
        """What is stored of an API key, under the current key first."""
        return [hmac.digest(root.api_key_pepper, api_key.encode(), "sha256") for root in self._each()]

    def _opened(self, wrapped_key: bytes, blob: bytes, place: bytes, read: Callable[[str], T]) -> T:
        try:
            return read(zlib.decompress(_decrypt(self._data_key(wrapped_key), blob, place)).decode("utf-8", "surrogatepass"))
        except RecursionError:
            raise ConfigurationError("a sealed value is nested deeper than this version takes in.") from None
        except (zlib.error, ValueError, TypeError) as error:
            raise ConfigurationError("a sealed value is damaged.") from error

    def _data_key(self, wrapped: bytes) -> AESGCM:
        return AESGCM(self._unwrap(wrapped, b"data-key"))

    def _unwrap(self, sealed: bytes, place: bytes) -> bytes:
        first, *others = self._each()
        for root in others:
            try:
                return _decrypt(root.wrap, sealed, place)
            except ConfigurationError:
                continue
        return _decrypt(first.wrap, sealed, place)

    def _each(self) -> list[Root]:
        return sorted(self._roots.values(), key=lambda root: root is not self._current)


def _derive(root: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label).derive(root)


def _place(job_id: int, shard_no: int, kind: str) -> bytes:
    return b"%d/%d/%s" % (job_id, shard_no, kind.encode())


def _packed(plain: str) -> bytes:
    return zlib.compress(plain.encode("utf-8", "surrogatepass"), 1)  # surrogatepass: a lone surrogate is kept as it came


def _encrypt(key: AESGCM, plain: bytes, place: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return VERSION + nonce + key.encrypt(nonce, plain, place)


def _decrypt(key: AESGCM, blob: bytes, place: bytes) -> bytes:
    if blob[:1] != VERSION:
        raise ConfigurationError("a sealed value has an unknown version: it was written by a newer guardfleet.")
    try:
        return key.decrypt(blob[1 : 1 + NONCE_BYTES], blob[1 + NONCE_BYTES :], place)
    except InvalidTag as error:
        raise ConfigurationError("a sealed value does not open: was secret_key changed?") from error

"""Standard Webhooks 1.0 signatures (scheme v1, HMAC-SHA256) and their secrets."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the scheme's public prefix
SECRET_BYTES = 24  # 32 base64 characters without padding: accepted by strict and lenient readers


def new_secret() -> str:
    """Return a new signing secret: `whsec_` and 32 base64 characters."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def is_secret(value: str) -> bool:
    """Return whether every Standard Webhooks reader accepts `value`: prefix, padded base64, 24-64 bytes."""
    try:
        return value.startswith(SECRET_PREFIX) and 24 <= len(_key(value)) <= 64  # noqa: PLR2004 - the scheme's limits
    except ValueError:
        return False


def sign(secrets_active: Sequence[str], *, event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers of one attempt, with one signature per active secret so that receivers can rotate."""
    message = b".".join((event_id.encode(), str(timestamp_s).encode(), body))
    marks = (base64.b64encode(hmac.digest(_key(secret), message, hashlib.sha256)).decode() for secret in secrets_active)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)

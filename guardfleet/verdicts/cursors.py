"""Opaque, signed cursors: a reader can neither forge one nor carry one to another job."""

import base64
import hmac
import struct
from collections.abc import Sequence

from guardfleet.errors import RejectedError
from guardfleet.verdicts.page import Cursor

MARK_BYTES = 8
POSITION = struct.Struct(">iq")  # ordinal of the shard, sequence number in it


def pack(cursor: Cursor, *, job_id: int, key: bytes) -> str:
    """Encode a cursor as text for a URL."""
    position = POSITION.pack(cursor.ord, cursor.seq)
    return base64.urlsafe_b64encode(position + _mark(position, job_id, key)).rstrip(b"=").decode()


def unpack(text: str, *, job_id: int, keys: Sequence[bytes]) -> Cursor:
    """Decode a cursor that any of the keys signed, the inverse of `pack`. Raises RejectedError for anything else."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raw = b""
    position, mark = raw[: POSITION.size], raw[POSITION.size :]
    if len(position) != POSITION.size or not any(hmac.compare_digest(mark, _mark(position, job_id, key)) for key in keys):
        raise RejectedError("after is not a cursor of this batch: take it from `next` of the previous page.")
    return Cursor(*POSITION.unpack(position))


def _mark(position: bytes, job_id: int, key: bytes) -> bytes:
    return hmac.digest(key, b"%d|" % job_id + position, "sha256")[:MARK_BYTES]

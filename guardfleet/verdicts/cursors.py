"""Opaque, signed cursors: a reader can neither forge one nor carry one to another job, or to another tenant."""

import base64
import hmac
import struct
import uuid
from collections.abc import Sequence

from guardfleet.errors import RejectedError
from guardfleet.verdicts.page import Cursor
from guardfleet.verdicts.wanted import Place

MARK_BYTES = 8
POSITION = struct.Struct(">iq")  # ordinal of the shard, sequence number in it
PLACE = struct.Struct(">16siqq")  # public id of the job, then as above, and how many verdicts were looked at


def pack(cursor: Cursor, *, job_id: int, key: bytes) -> str:
    """Encode a cursor as text for a URL."""
    position = POSITION.pack(cursor.ord, cursor.seq)
    return base64.urlsafe_b64encode(position + _mark(position, b"%d|" % job_id, key)).rstrip(b"=").decode()


def unpack(text: str, *, job_id: int, keys: Sequence[bytes]) -> Cursor:
    """Decode a cursor that any of the keys signed, the inverse of `pack`. Raises RejectedError for anything else."""
    position = _opened(text, POSITION, b"%d|" % job_id, keys)
    if position is None:
        raise RejectedError("after is not a cursor of this batch: take it from `next` of the previous page.")
    return Cursor(*POSITION.unpack(position))


def pack_place(place: Place, *, tenant_id: int, key: bytes) -> str:
    """Encode a place among all of a tenant's verdicts as text for a URL."""
    packed = PLACE.pack(place.job.bytes, place.ord, place.seq, place.looked)
    return base64.urlsafe_b64encode(packed + _mark(packed, _of_tenant(tenant_id), key)).rstrip(b"=").decode()


def unpack_place(text: str, *, tenant_id: int, keys: Sequence[bytes]) -> Place:
    """Decode a place that any of the keys signed, the inverse of `pack_place`. Raises RejectedError for anything else."""
    packed = _opened(text, PLACE, _of_tenant(tenant_id), keys)
    if packed is None:
        raise RejectedError("this link to a next page is none of yours, or was cut off: begin with the first page.", param="after")
    job, *rest = PLACE.unpack(packed)
    return Place(uuid.UUID(bytes=job), *rest)


def _opened(text: str, form: struct.Struct, whose: bytes, keys: Sequence[bytes]) -> bytes | None:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    packed, mark = raw[: form.size], raw[form.size :]
    is_ours = len(packed) == form.size and any(hmac.compare_digest(mark, _mark(packed, whose, key)) for key in keys)
    return packed if is_ours else None


def _of_tenant(tenant_id: int) -> bytes:
    return b"tenant %d|" % tenant_id


def _mark(packed: bytes, whose: bytes, key: bytes) -> bytes:
    return hmac.digest(key, whose + packed, "sha256")[:MARK_BYTES]

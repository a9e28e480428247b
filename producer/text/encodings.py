"""Decode a text file: by its byte-order mark, else the caller's encoding, else UTF-8. Never guessed, always strict.

A line that is not in its file's encoding is refused: nothing is judged on characters that a reader invented.
"""

import codecs
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from guardfleet.errors import RejectedError

BOMS = (  # UTF-32's little-endian mark begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ASCII = bytes(range(0x20, 0x7F)) + b"\t\r\n"
UNMARKED = {"-0-0": "utf-16-le", "0-0-": "utf-16-be", "-000": "utf-32-le", "000-": "utf-32-be"}  # by which of four bytes are zero
MARK = "guardfleet-mark"
SIGNS = "\u00e9\u0451\u05d0\u0e01\u20ac\u3042\u4e2d\uac00"  # one of each group of encodings
NEED_MARK = ("utf-16", "utf-32")
codecs.register_error(MARK, lambda error: ("\udcff", getattr(error, "end", 1)))  # becomes the byte ff, which is never UTF-8


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file's bytes are decoded. `codec` decodes lines after `chunks` has prepared the bytes."""

    name: str
    bom_bytes: int = 0

    @property
    def is_wide(self) -> bool:
        """Whether a line end is not the byte 0a, so that lines cannot be cut before decoding."""
        return "\n".encode(self.name) != b"\n"

    @property
    def codec(self) -> str:
        """The codec that decodes a line."""
        return "utf-8" if self.is_wide else self.name

    def chunks(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the bytes without their mark; wide encodings come as UTF-8, with an invalid byte for what could not be decoded."""
        left = self.bom_bytes
        machine = codecs.getincrementaldecoder(self.name)(MARK) if self.is_wide else None
        for chunk in raw:
            rest = chunk[left:]
            left = max(0, left - len(chunk))
            yield machine.decode(rest).encode("utf-8", "surrogateescape") if machine else rest
        if machine and (last := machine.decode(b"", final=True)):
            yield last.encode("utf-8", "surrogateescape")

    def decode(self, line: bytes) -> str:
        """Decode a line. Raises ValueError that says what is wrong, quoting a byte at most."""
        try:
            return line.decode(self.codec)
        except UnicodeDecodeError as error:
            where = "" if self.is_wide else f": byte {error.start + 1} of it is 0x{error.object[error.start]:02x}"
            raise ValueError(f"the line is not {self.name.upper()}{where}") from None


def encoding_of(head: bytes, name: str, wanted: str | None) -> Encoding:
    """Return the encoding of a file that begins so. Raises RejectedError if it is unknown or contradicts the first bytes."""
    mark, marked = next((found for found in BOMS if head.startswith(found[0])), (b"", None))
    if wanted is not None:
        asked = _known(wanted)
        if marked is not None and marked.split("-")[:2] != asked.split("-")[:2]:
            raise RejectedError(f"{name} begins with the byte-order mark of {marked.upper()}, but --encoding is {wanted}.")
        if marked is None and asked in NEED_MARK:
            raise RejectedError(f"{name} has no byte-order mark: give --encoding {asked}-le or {asked}-be.")
        return Encoding(marked or asked, len(mark))
    if marked is None and (meant := _unmarked(head)):
        raise RejectedError(f"{name} looks like {meant.upper()} without a byte-order mark: try --encoding {meant}.")
    return Encoding(marked or "utf-8", len(mark))


def _known(wanted: str) -> str:
    """Return the codec's own name. Raises RejectedError for an unknown one, or one that is not for text."""
    sample = ASCII.decode()
    try:
        found = codecs.lookup(wanted).name.removesuffix("-sig")
        is_text = sample.encode(found).decode(found) == sample and _is_by_line(found)
        codecs.getincrementaldecoder(found)(MARK).decode(b"" if found in NEED_MARK else bytes(range(256)).replace(b"\\", b""))
    except (LookupError, ValueError):  # no codec, or not for text
        is_text = False
    if not is_text:
        raise RejectedError(f"--encoding {wanted!r} is unknown; try utf-8, gbk, shift_jis, windows-1252 or utf-16.")
    return found


def _is_by_line(codec: str) -> bool:
    """Return whether each line can be decoded alone: ISO-2022-KR declares its character set once, in the first line."""
    if Encoding(codec).is_wide:
        return True  # decoded before it is cut
    for sign in SIGNS:
        with suppress(UnicodeEncodeError):
            lines = f"{sign}\n{sign}\n".encode(codec).split(b"\n")
            if [line.decode(codec) for line in lines] != [sign, sign, ""]:
                return False
    return True


def _unmarked(head: bytes) -> str | None:
    """Detect UTF-16 or 32 without a mark: zeros between the first letters, which are ASCII in JSON and usually in a header."""
    return UNMARKED.get("".join("-0"[byte == 0] for byte in head[:4]))

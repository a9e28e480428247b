"""What the bytes of a text file stand for: by its byte-order mark, as the caller says, else UTF-8. Never guessed, always strict.

A line that is not in its file's encoding is refused: nothing is judged on characters that a reader made up.
"""

import codecs
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from guardfleet.errors import RejectedError

BOMS = (  # UTF-32's little-endian one begins like UTF-16's
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
    """How a file's bytes are read. `codec` is what lines are decoded with, once `pieces` has brought them that far."""

    name: str
    bom_bytes: int = 0

    @property
    def is_wide(self) -> bool:
        """Whether a line end is not the byte 0a, so that lines cannot be cut before decoding."""
        return "\n".encode(self.name) != b"\n"

    @property
    def codec(self) -> str:
        """The codec of a line."""
        return "utf-8" if self.is_wide else self.name

    def pieces(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """The bytes without their mark; of wide encodings as UTF-8, with a byte that is never UTF-8 for what could not be read."""
        left = self.bom_bytes
        machine = codecs.getincrementaldecoder(self.name)(MARK) if self.is_wide else None
        for piece in raw:
            rest = piece[left:]
            left = max(0, left - len(piece))
            yield machine.decode(rest).encode("utf-8", "surrogateescape") if machine else rest
        if machine and (last := machine.decode(b"", final=True)):
            yield last.encode("utf-8", "surrogateescape")

    def decode(self, line: bytes) -> str:
        """A line as text. Raises ValueError with what is wrong, which quotes a byte at most."""
        try:
            return line.decode(self.codec)
        except UnicodeDecodeError as error:
            place = "" if self.is_wide else f": byte {error.start + 1} of it is 0x{error.object[error.start]:02x}"
            raise ValueError(f"the line is not {self.name.upper()}{place}") from None


def encoding_of(head: bytes, name: str, wanted: str | None) -> Encoding:
    """The encoding of a file that begins so. Raises RejectedError where that is known not to be it, or is no encoding."""
    mark, marked = next((found for found in BOMS if head.startswith(found[0])), (b"", None))
    if wanted is not None:
        asked = _known(wanted)
        if marked is not None and marked.split("-")[:2] != asked.split("-")[:2]:
            raise RejectedError(f"{name} begins with the byte-order mark of {marked.upper()}, and --encoding says {wanted}.")
        if marked is None and asked in NEED_MARK:
            raise RejectedError(f"{name} has no byte-order mark: --encoding {asked}-le or {asked}-be says which of them it is.")
        return Encoding(marked or asked, len(mark))
    if marked is None and (meant := _unmarked(head)):
        raise RejectedError(f"{name} looks like {meant.upper()} without a byte-order mark: --encoding {meant} reads it as that.")
    return Encoding(marked or "utf-8", len(mark))


def _known(wanted: str) -> str:
    """The codec's own name; RejectedError for what is none, or is none of text."""
    sample = ASCII.decode()
    try:
        found = codecs.lookup(wanted).name.removesuffix("-sig")
        is_text = sample.encode(found).decode(found) == sample and _is_by_line(found)
        codecs.getincrementaldecoder(found)(MARK).decode(b"" if found in NEED_MARK else bytes(range(256)).replace(b"\\", b""))
    except (LookupError, ValueError):  # no codec, or none of text
        is_text = False
    if not is_text:
        raise RejectedError(f"--encoding {wanted!r} is not known; utf-8, gbk, shift_jis, windows-1252, utf-16 are some.")
    return found


def _is_by_line(codec: str) -> bool:
    """Whether each line says all that it takes to read it: ISO-2022-KR says once, in the first, what the signs of all stand for."""
    if Encoding(codec).is_wide:
        return True  # read through before it is cut
    for sign in SIGNS:
        with suppress(UnicodeEncodeError):
            lines = f"{sign}\n{sign}\n".encode(codec).split(b"\n")
            if [line.decode(codec) for line in lines] != [sign, sign, ""]:
                return False
    return True


def _unmarked(head: bytes) -> str | None:
    """UTF-16 or 32 without a mark: zeros between the first letters, which are ASCII in JSON and as a rule in a header."""
    return UNMARKED.get("".join("-0"[byte == 0] for byte in head[:4]))

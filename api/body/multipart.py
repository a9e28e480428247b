"""Read multipart uploads as they arrive: fields, and one file, whose bytes are passed on at once and never held.

The parts may come in any order and be cut anywhere: neither changes the result.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.http.problems import ProblemError

MAX_FIELDS, MAX_FIELD_BYTES, MAX_HEADER_BYTES = 16, 4096, 8192
FORM_BYTES = 256 << 10  # of a form besides its file: all fields and headers


@dataclass
class Upload:
    """What has been read of a multipart body."""

    fields: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)  # fields that came before the file
    filename: str | None = None  # of the part `file`, once it has begun
    is_whole: bool = False
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _headers: dict[str, bytes] = field(default_factory=dict)
    _name: str = ""
    _value: bytearray = field(default_factory=bytearray)
    _data: list[bytes] = field(default_factory=list)

    async def file_bytes(self, request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the bytes of the part `file` as they arrive, with `filename` and `before` set; at the end, all `fields` are."""
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise ProblemError(415, "unsupported_content_type", "send the file as multipart/form-data.")
        try:
            parser = MultipartParser(options[b"boundary"], self._callbacks(), max_header_size=MAX_HEADER_BYTES)  # type: ignore[arg-type]
        except FormParserError:
            raise _malformed() from None
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            wrong = too_large(max_bytes) if received > max_bytes + FORM_BYTES else self._parse(parser.write, chunk)
            if self._data:  # before an error further on
                data, self._data = b"".join(self._data), []
                yield data
            if wrong:
                raise wrong
        if wrong := self._parse(parser.finalize):
            raise wrong
        if not self.is_whole or self.filename is None:
            raise ProblemError(400, "missing_file", "the body has no complete part `file`.", param="file")

    @staticmethod
    def _parse(step: Callable[..., object], *args: bytes) -> ProblemError | None:
        try:
            step(*args)
        except FormParserError:
            return _malformed()
        except ProblemError as error:
            return error
        return None

    def _callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._headers, self._value = {}, bytearray()

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[name.decode("latin-1").lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self.fields or (self._name == "file" and self.filename is not None):
            raise ProblemError(400, "invalid_multipart", f"the body has more than one part {self._name!r}.")
        if self._name == "file":
            self.filename, self.before = _plain_name(options.get(b"filename", b"upload")), dict(self.fields)
        elif len(self.fields) >= MAX_FIELDS:
            raise _too_many()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._data.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise _too_many()

    def _on_part_end(self) -> None:
        if self._name != "file":
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.is_whole = True


def too_large(max_bytes: int) -> ProblemError:
    """Return the refusal of a file that is too large."""
    return ProblemError(413, "too_large", f"the file is too large: at most {max_bytes} bytes are allowed.", param="file")


def _malformed() -> ProblemError:
    return ProblemError(400, "invalid_multipart", "the multipart body is malformed.")


def _too_many() -> ProblemError:
    return ProblemError(413, "too_large", f"a form may have at most {MAX_FIELDS} fields of {MAX_FIELD_BYTES} bytes.")


def _plain_name(raw: bytes) -> str:
    """Return a file name without folders and control characters."""
    name = raw.decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(char for char in name if char.isprintable())[:200] or "upload"

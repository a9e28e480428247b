"""Files in OpenAI's shape: uploaded as a stream, encrypted, listed, read in parts, deleted. Result files of batches too."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from api.body.inline_lines import refuse_packed
from api.body.multipart import FORM_BYTES, Upload, too_large
from api.context import AppContext, Context, FilesReader, FilesWriter
from api.http.download import PARTS, serve
from api.http.header_parameters import IDEMPOTENCY_KEY, IF_NONE_MATCH, IF_RANGE, RANGE, reads
from api.http.idempotency import Once
from api.http.pages import page_object
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.openai import result_files
from api.schemas.base import answer
from api.schemas.batches import File, FileDeleted, FilePage
from api.services.file_storage import Writer
from guardfleet.domain import ids
from guardfleet.errors import LineError, RejectedError
from guardfleet.jobs import holding
from guardfleet.rows.lines import LineCutter, NumberedLine
from guardfleet.rows.row import is_row, longest_line, parse_line
from guardfleet.store import audit, files
from guardfleet.store.files import StoredFile
from guardfleet.store.keys import Caller

router = APIRouter(prefix="/v1/files", tags=["files"])

PURPOSES = ("batch",)
EXPIRY_S = range(3600, 2_592_001)
EXPIRY = "expires_after"
ANCHOR, SECONDS = f"{EXPIRY}[anchor]", f"{EXPIRY}[seconds]"
DAY_S = 86_400.0
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        ANCHOR: {"type": "string", "enum": ["created_at"]},
                        SECONDS: {"type": "integer", "minimum": EXPIRY_S.start, "maximum": EXPIRY_S.stop - 1},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}


@router.post("", operation_id="createFile", responses=answer(File), openapi_extra=FORM | reads(IDEMPOTENCY_KEY))
async def create(request: Request, context: AppContext, caller: FilesWriter) -> dict[str, Any]:
    """Upload a file of batch lines. Fields sent before the file are checked before the file is read."""
    refuse_packed(request)
    with context.bodies.taken(caller.key_id):
        return await _taken(request, context, caller)


async def _taken(request: Request, context: Context, caller: Caller) -> dict[str, Any]:
    max_bytes = context.settings.api.files_max_bytes
    _check_length(request, max_bytes)
    upload = Upload()
    arriving: _Arriving | None = None
    try:
        async for data in upload.file_bytes(request, max_bytes=max_bytes):
            if arriving is None:
                arriving = await in_thread(_Arriving.begin, context, caller, upload)
            await in_thread(arriving.take, data)
        purpose, expires_s = _purpose(upload.fields), _kept_s(upload.fields)
        if purpose is None:
            raise ProblemError(400, "missing_purpose", "send the field `purpose`.", param="purpose")
        if arriving is None:
            raise ProblemError(400, "empty_file", "the file is empty.", param="file")
        digest = await in_thread(arriving.end)
        asked = digest + json.dumps([upload.filename, upload.fields], sort_keys=True).encode()  # not the body: its boundary differs
        async with Once.of(request, context.db, caller, asked) as once:
            if once.earlier is not None:
                return file_object(await _file(once.earlier, context, caller.tenant_id))
            record, label = once.recording(), arriving.file.label
            stored = await in_thread(
                files.complete,
                context.db,
                arriving.file,
                purpose=purpose,
                size=arriving.writer.size,
                lines=arriving.lines,
                digest=digest,
                expires_s=expires_s,
                also=lambda connection: record(connection, label),
            )
            arriving.is_kept = True
        return file_object(stored)
    finally:
        if arriving is not None and not arriving.is_kept:
            await in_thread(arriving.writer.discard)


@router.get("", operation_id="listFiles", responses=answer(FilePage))
async def listing(
    context: AppContext,
    caller: FilesReader,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> dict[str, Any]:
    """List uploaded files, newest first. Batches name their result files."""
    found = await in_thread(
        files.page,
        context.db,
        tenant_id=caller.tenant_id,
        after=ids.FILE.parse(after) if after else None,
        limit=limit + 1,
        purpose=purpose,
        newest_first=order == "desc",
    )
    data = [file_object(file) for file in found[:limit]]
    return page_object(data, has_more=len(found) > limit)


@router.get("/{file_id}", operation_id="retrieveFile", responses=answer(File))
async def retrieve(file_id: str, context: AppContext, caller: FilesReader) -> dict[str, Any]:
    """Return a file's description."""
    if output := await in_thread(result_files.find, context.db, context.keyring, file_id, caller.tenant_id):
        return await in_thread(output.file_object)
    return file_object(await _file(file_id, context, caller.tenant_id))


@router.delete("/{file_id}", operation_id="deleteFile", responses=answer(FileDeleted))
async def delete(file_id: str, context: AppContext, caller: FilesWriter) -> dict[str, Any]:
    """Delete a file and the key that decrypts it. Texts of batches made from it are kept."""
    public_id = ids.FILE.parse(file_id)
    if await in_thread(holding.guard_file, context.db, context.keyring, caller.tenant_id, public_id):
        raise RejectedError(files.HELD)
    await in_thread(files.delete, context.db, public_id, tenant_id=caller.tenant_id)
    await in_thread(context.contents.delete, public_id)
    await in_thread(files.removed, context.db, public_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get(
    "/{file_id}/content",
    operation_id="downloadFile",
    response_class=StreamingResponse,
    responses=PARTS,
    openapi_extra=reads(RANGE, IF_RANGE, IF_NONE_MATCH),
)
async def content(file_id: str, request: Request, context: AppContext, caller: FilesReader) -> Response:
    """Return the content, streamed; completely, or the part that `Range` names. `ETag` changes only with the content."""
    if output := await in_thread(result_files.find, context.db, context.keyring, file_id, caller.tenant_id):
        return await serve(request, output.etag, output.filename, output.size, output.read, begins=output.note_export)
    file = await _file(file_id, context, caller.tenant_id)
    return await serve(
        request,
        (file.digest or b"").hex(),
        file.filename,
        lambda: file.size,
        lambda start, stop: context.contents.read(file.public_id, file.data_key, size=file.size, start=start, stop=stop),
        begins=lambda: audit.note(context.db, file.tenant_id, "file.download", file.label),
    )


def file_object(file: StoredFile) -> dict[str, Any]:
    """Return a file as OpenAI's object."""
    return {
        "id": file.label,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at else None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


@dataclass
class _Arriving:
    """An upload in progress. Its first line is checked early, so that a file which is no batch is refused before it is complete."""

    file: StoredFile
    writer: Writer
    max_bytes: int
    max_text_bytes: int
    is_kept: bool = False
    lines: int = 0
    _is_checked: bool = False  # the first line was checked
    _ends: bool = True  # the last byte received ended a line

    def __post_init__(self) -> None:
        self._cutter = LineCutter(longest_line(self.max_text_bytes))

    @classmethod
    def begin(cls, context: Context, caller: Caller, upload: Upload) -> Self:
        _purpose(upload.before)
        _kept_s(upload.before, is_all=False)
        file = files.create(context.db, context.keyring, tenant_id=caller.tenant_id, filename=upload.filename or "upload")
        writer = context.contents.writer(file.public_id, file.data_key)
        return cls(file, writer, context.settings.api.files_max_bytes, context.settings.intake.max_text_bytes)

    def take(self, data: bytes) -> None:
        if self.writer.size + len(data) > self.max_bytes:
            raise too_large(self.max_bytes)
        if not self._is_checked:
            self._check_first(self._cutter.cut(data))
        self.lines += data.count(b"\n")
        self._ends = data[-1:] == b"\n"
        self.writer.write(data)

    def end(self) -> bytes:
        if not self._is_checked:
            self._check_first(self._cutter.end())
        if not self._is_checked:
            raise ProblemError(400, "empty_file", "the file has no lines.", param="file")
        self.lines += not self._ends
        return self.writer.close()

    def _check_first(self, lines: Iterable[NumberedLine]) -> None:
        """Raise ProblemError if the first line that is not blank is not a batch line."""
        first = next(iter(lines), None)
        line = first[1] if first else b""
        if line is None or (not line and self._cutter.is_too_long):
            raise ProblemError(400, "invalid_jsonl", "the first line is too long.", param="file")
        if not line:
            return
        try:
            is_usable = is_row(parse_line(1, line))
            reason = "it has no member of a row"
        except LineError as error:
            is_usable, reason = False, error.detail
        if not is_usable:
            detail = f"the file is not a JSONL batch file; its first line: {reason}."
            raise ProblemError(400, "invalid_jsonl", detail, param="file")
        self._is_checked = True


def _purpose(fields: Mapping[str, str]) -> str | None:
    """Return the purpose, if it was sent yet. Raises ProblemError for an unknown purpose or field."""
    if unread := [name for name in fields if name != "purpose" and not name.startswith(EXPIRY)]:
        detail = f"this field is unknown: send purpose, {ANCHOR}, {SECONDS} and file."
        raise ProblemError(400, "unknown_parameter", detail, param=unread[0])
    purpose = fields.get("purpose")
    if purpose is not None and purpose not in PURPOSES:
        raise ProblemError(400, "invalid_purpose", f"purpose must be {' or '.join(PURPOSES)}.", param="purpose")
    return purpose


def _kept_s(fields: Mapping[str, str], *, is_all: bool = True) -> float:
    """Return how many seconds to keep the file. Raises ProblemError for an invalid expiry; it may be partial unless `is_all`."""
    said = {name: value for name, value in fields.items() if name.startswith(EXPIRY)}
    if not said:
        return 30 * DAY_S
    seconds = said.get(SECONDS)
    if said.get(ANCHOR, "created_at") != "created_at":
        raise _no_expiry("expires_after.anchor must be created_at.")
    if said.keys() - {ANCHOR, SECONDS} or (seconds is None and is_all):
        raise _no_expiry(f"an expiry needs both fields, {ANCHOR} and {SECONDS}.")
    if seconds is None:
        return 0.0
    if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 9 or int(seconds) not in EXPIRY_S:  # noqa: PLR2004
        raise _no_expiry(f"expires_after.seconds must be {EXPIRY_S.start} to {EXPIRY_S.stop - 1}.")
    return float(seconds)


def _no_expiry(detail: str) -> ProblemError:
    return ProblemError(400, "invalid_expiry", detail, param="expires_after")


def _check_length(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes + FORM_BYTES:
        raise too_large(max_bytes)


async def _file(file_id: str, context: Context, tenant_id: int) -> StoredFile:
    return await in_thread(files.get, context.db, ids.FILE.parse(file_id), tenant_id=tenant_id)

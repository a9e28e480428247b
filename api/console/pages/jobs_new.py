"""Submit a file as a job: it is uploaded, looked at, and then submitted as it was looked at."""

import re
from typing import Any, Self

from starlette.responses import Response

from api.body.multipart import FORM_BYTES, Upload, too_large
from api.console.access import FIELD
from api.console.asking import Ask, given_csrf
from api.console.routing import action, page
from api.http.problems import ProblemError
from api.http.threads import beside
from api.routes.batches import opened_of_file
from api.routes.files import DAY_S
from api.services import file_reading
from api.services.file_reading import ENCODINGS, FORMATS, Preview, Reading
from api.services.file_storage import Writer
from guardfleet.domain import ids
from guardfleet.domain.options import JobOptions
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import RejectedError
from guardfleet.rows.metadata import is_storable
from guardfleet.store import files, models
from guardfleet.store.files import StoredFile
from guardfleet.store.jobs.creation import NewJob

KEPT_S = 30 * DAY_S
MOST_NAMES, MOST_NAME = 200, 200  # columns that are offered, and characters of their names
OPTIONS = ("name", "priority", "completion_window", "model")


async def choose(ask: Ask) -> Response:
    """Show where a file is dropped."""
    return ask.render("jobs/new.html", most=ask.context.settings.api.files_max_bytes)


async def upload(ask: Ask) -> Response:
    """Store a file, and go to its preview."""
    ask.require("files:write")
    most = ask.context.settings.api.files_max_bytes
    length = ask.request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most + FORM_BYTES:
        raise too_large(most)
    with ask.context.bodies.taken(ask.caller.key_id):
        file = await _stored(ask, most)
    return ask.back(f"/console/jobs/new/{file.label}")


async def _stored(ask: Ask, most: int) -> StoredFile:
    upload, arriving = Upload(), None
    try:
        async for data in upload.file_bytes(ask.request, max_bytes=most):
            if not data:
                continue
            if arriving is None:
                ask.access.require_own_form(ask.request, given_csrf(ask.request, upload.before))
                file_reading.require_readable(data, _name(upload))
                arriving = await ask.of(_Arriving.begin, ask, _name(upload))
            await ask.of(arriving.take, data, most)
        ask.access.require_own_form(ask.request, given_csrf(ask.request, upload.fields))
        if unknown := next((name for name in upload.fields if name != FIELD), None):
            raise ProblemError(400, "unknown_parameter", "the form has a field that it should not have.", param=unknown[:MOST_NAME])
        if arriving is None:
            raise ProblemError(400, "empty_file", "the file is empty: choose another one.", param="file")
        return await ask.of(arriving.end)
    finally:
        if arriving is not None and not arriving.is_kept:
            await ask.of(arriving.writer.discard)


def _name(upload: Upload) -> str:
    return upload.filename or "upload"


class _Arriving:
    """A file while it is uploaded."""

    def __init__(self, ask: Ask, file: StoredFile, writer: Writer) -> None:
        self._ask, self._file, self.writer = ask, file, writer
        self._lines, self._ends = 0, True  # whether the last byte received ended a line
        self.is_kept = False

    @classmethod
    def begin(cls, ask: Ask, name: str) -> Self:
        file = files.create(ask.db, ask.context.keyring, tenant_id=ask.caller.tenant_id, filename=name)
        return cls(ask, file, ask.context.contents.writer(file.public_id, file.data_key))

    def take(self, data: bytes, most: int) -> None:
        if self.writer.size + len(data) > most:
            raise too_large(most)
        self._lines += data.count(b"\n")
        self._ends = data[-1:] == b"\n"
        self.writer.write(data)

    def end(self) -> StoredFile:
        digest = self.writer.close()
        lines = self._lines + (not self._ends)
        whole = files.complete(
            self._ask.db, self._file, purpose="batch", size=self.writer.size, lines=lines, digest=digest, expires_s=KEPT_S
        )
        self.is_kept = True
        return whole


async def show(ask: Ask) -> Response:
    """Show what a file seems to be."""
    return await _look(ask, await _file(ask), Reading())


async def look(ask: Ask) -> Response:
    """Show what a file is if it is read as somebody chose."""
    return await _look(ask, await _file(ask), _reading(ask))


async def submit(ask: Ask) -> Response:
    """Make a job of the file, read as it was shown."""
    ask.require("files:write")
    file, reading = await _file(ask), _reading(ask)
    found = await _previewed(ask, file, reading)
    if found.wrong is not None or not found.rows:
        wrong = found.wrong or "none of the rows that were looked at can be judged."
        return await _look(ask, file, reading, wrong=wrong)
    try:
        options = _options(ask)
        new = NewJob(options, ask.caller.tenant_id, input_file_id=file.public_id, reading=_as_shown(reading, found).stored())
        job = await opened_of_file(ask.request, ask.context, ask.caller, new, file)
    except RejectedError as error:
        return await _look(ask, file, reading, wrong=str(error), wrong_at=error.param)
    return ask.back(f"/console/jobs/{ids.JOB.of(job.public_id)}", done="job_made")


def _as_shown(reading: Reading, found: Preview) -> Reading:
    """Return the reading with what was detected: nothing is decided anew when the file is read as a whole."""
    encoding = None if found.encoding == "utf-8" else reading.encoding
    text = reading.text if reading.text or not found.names else None
    return Reading(found.format, encoding, text, reading.id, reading.kept)


def _reading(ask: Ask) -> Reading:
    form = ask.form
    kept = [value for name, value in ask.fields if name == "kept"]
    if not all(map(is_storable, (ask.form.get("text", ""), ask.form.get("id", ""), *kept))):
        raise ProblemError(400, "invalid_parameter", "the name of a column must not contain a NUL or a lone surrogate.")
    return Reading(
        _one_of("format", form.get("format"), FORMATS),
        _one_of("encoding", form.get("encoding"), ENCODINGS),
        form.get("text") or None,
        form.get("id") or None,
        {"none": (), "some": tuple(kept)}.get(form.get("keep", "all")),
    )


def _one_of(name: str, given: str | None, among: tuple[str, ...]) -> str | None:
    if given and given not in among:
        raise ProblemError(400, "invalid_parameter", f"{name} must be one of: {', '.join(among)}.", param=name)
    return given or None


def _options(ask: Ask) -> JobOptions:
    """Return the options of the form. Raises RejectedError for the first wrong one."""
    given: dict[str, Any] = {name: ask.form[name].strip() for name in OPTIONS if ask.form.get(name, "").strip()}
    if re.fullmatch(r"-?[0-9]{1,4}", given.get("priority", "")):
        given["priority"] = int(given["priority"])
    given["detectors"] = _detectors(ask)
    if given["detectors"] == []:
        raise RejectedError("Tick at least one detector: without any, nobody would judge the texts.", param="detectors")
    given["all_or_nothing"] = "all_or_nothing" in ask.form
    return JobOptions.of(**given)


def _detectors(ask: Ask) -> list[str] | None:
    """Return the detectors that are ticked; None if the form has none to tick."""
    values = [value for name, value in ask.fields if name == "detectors"]
    return list(filter(None, values)) if values else None


async def _file(ask: Ask) -> StoredFile:
    return await ask.of(files.get, ask.db, ids.FILE.parse(ask.path["file"]), tenant_id=ask.caller.tenant_id)


async def _previewed(ask: Ask, file: StoredFile, reading: Reading) -> Preview:
    chunks = ask.context.contents.read(file.public_id, file.data_key, size=file.size)
    most = ask.context.settings.intake.max_text_bytes
    return await beside(
        ask.context.body_threads, file_reading.preview, file.filename, chunks, reading, max_text_bytes=most
    )  # fmt: skip


async def _look(ask: Ask, file: StoredFile, reading: Reading, wrong: str | None = None, wrong_at: str | None = None) -> Response:
    found, ticked = await _previewed(ask, file, reading), _detectors(ask)
    names = [name for name in found.names if len(name) <= MOST_NAME][:MOST_NAMES]
    return ask.render(
        "jobs/preview.html",
        200 if wrong is None else 400,
        file=file,
        found=found,
        reading=found.reading,
        names=names,
        wrong=wrong or found.wrong,
        wrong_at=wrong_at,
        formats=FORMATS,
        encodings=ENCODINGS,
        models=await ask.of(models.served, ask.db),
        detectors=[GUARD, *await ask.of(models.detectors, ask.db)],
        form=ask.form,
        chosen=[GUARD] if ticked is None else ticked,
    )


WRITE = "batches:write"
routes = [
    page("/jobs/new", choose, scope=WRITE),
    action("/jobs/new/upload", upload, scope=WRITE, proves_later=True),
    page("/jobs/new/{file}", show, scope=WRITE),
    action("/jobs/new/{file}/look", look, scope=WRITE),
    action("/jobs/new/{file}", submit, scope=WRITE),
]

"""The result files of a batch: its verdicts as OpenAI's batch lines, rendered when they are read, never stored.

The output file has the verdicts; the error file has errors, texts that the guard was not asked about, refused lines, and
texts that a cancelled or expired batch never reached. A file that would be empty does not exist.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

import guardfleet
from api.openai.categories import result_json
from guardfleet.domain import ids
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import ERROR_CODES, NO_VERDICT, Model, Severity
from guardfleet.errors import NotFoundError
from guardfleet.rows.row import MODERATIONS
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, verdicts
from guardfleet.store.jobs import unprocessed, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.encoding import StoredVerdict, canonical_answer

NAME = re.compile(f"(?:{ids.OUTPUT_FILE.prefix}|{ids.ERROR_FILE.prefix})([0-9a-f]{{32}})")


def labels(job: JobView) -> dict[str, str | None]:
    """Return the ids of a batch's result files; None for those that do not exist."""
    ended, left = job.state.is_final and job.state is not JobState.FAILED, job.total - job.done
    without = job.error + job.unrated
    return {
        "output_file_id": ids.OUTPUT_FILE.of(job.public_id) if ended and job.done > without else None,
        "error_file_id": ids.ERROR_FILE.of(job.public_id) if ended and without + job.rejected + left else None,
    }


@dataclass(frozen=True)
class Output:
    """One result file."""

    db: Database
    keyring: Keyring
    job: JobView
    is_errors: bool

    @property
    def filename(self) -> str:
        """The name under which a browser would save it."""
        return f"{'errors' if self.is_errors else 'output'}_{self.job.public_id.hex}.jsonl"

    @property
    def etag(self) -> str:
        """A tag of the content: verdicts of an ended batch change by erasures only, and a version renders them in one way only."""
        known = f"{self.filename}/{self.job.done}/{self.job.purged_at}/{self.job.erased}/{guardfleet.__version__}"
        return hashlib.sha256(known.encode()).hexdigest()[:32]

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield its bytes, a page of verdicts at a time; what precedes `start` is rendered and dropped."""
        at = 0
        for chunk in self._chunks():
            end = at + len(chunk)
            if stop is not None and at >= stop:
                return
            if end > start:
                yield chunk[max(0, start - at) : None if stop is None else max(0, stop - at)]
            at = end

    def size(self) -> int:
        """Return the file's size, counted by rendering it once."""
        return _size(self)

    def note_export(self) -> None:
        """Record that somebody reads it."""
        what = "errors" if self.is_errors else "output"
        audit.note(self.db, self.job.tenant_id, "job.export", self.job.label, what=what, format="jsonl")

    def file_object(self) -> dict[str, Any]:
        """Return the file as OpenAI's object."""
        ended = self.job.finished_at or self.job.created_at
        return {
            "id": (ids.ERROR_FILE if self.is_errors else ids.OUTPUT_FILE).of(self.job.public_id),
            "object": "file",
            "bytes": self.size(),
            "created_at": int(ended.timestamp()),
            "expires_at": None,
            "filename": self.filename,
            "purpose": "batch_output",
            "status": "processed",
            "status_details": None,
        }

    def __hash__(self) -> int:
        return hash(self.etag)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and self.etag == other.etag

    def _chunks(self) -> Iterator[bytes]:
        db, job = self.db, self.job
        if not self.is_errors:
            render = _moderation_line if job.endpoint == MODERATIONS else _completion_line
            for page in verdicts.in_order(db, job, max_severity=Severity.UNSAFE):
                rated = [row for row in page.rows if row.judgement.severity is not Severity.UNRATED]
                yield b"".join(_output_line(job, row, page.models[row.model_id], render) for row in rated)
            return
        if job.unrated:
            for page in verdicts.in_order(db, job, min_severity=Severity.UNRATED, max_severity=Severity.UNRATED):
                yield b"".join(_error_line(job, row) for row in page.rows if row.judgement.severity is Severity.UNRATED)
        for page in verdicts.in_order(db, job, min_severity=Severity.ERROR):
            yield b"".join(_error_line(job, row) for row in page.rows)
        for line in unprocessed.refused(db, job):
            yield _refused_line(job, line)
        code = "batch_expired" if job.state is JobState.EXPIRED else "batch_cancelled"
        for first_seq, rows in unprocessed.dropped(db, self.keyring, job):
            for seq, row in enumerate(rows, first_seq):
                yield _failed_line(job, str(seq), row.id or None, code, "the batch ended before this request was processed.")


def find(db: Database, keyring: Keyring, file_id: str, tenant_id: int) -> Output | None:
    """Return the result file with this id; None if the id is not one of a result file. Raises NotFoundError."""
    found = NAME.fullmatch(file_id)
    if not found:
        return None
    job = views.get(db, ids.JOB.parse(found[1]), tenant_id=tenant_id)
    if file_id not in labels(job).values():
        raise NotFoundError(ids.FILE.unknown)
    return Output(db, keyring, job, is_errors=file_id.startswith(ids.ERROR_FILE.prefix))


@lru_cache(256)
def _size(output: Output) -> int:
    return sum(map(len, output.read()))


def _output_line(job: JobView, row: StoredVerdict, model: Model, render: Callable[[JobView, StoredVerdict, Model], bytes]) -> bytes:
    """Render a line of the output file; one that cannot be decoded becomes an error line."""
    return _error_line(job, row) if row.judgement.severity in NO_VERDICT else render(job, row, model)


def _error_line(job: JobView, row: StoredVerdict) -> bytes:
    said = row.judgement
    if said.severity is Severity.UNRATED:
        return _failed_line(job, str(row.seq), row.id, "unrated", "the batch did not ask the guard: read its results.")
    code = said.error or "failed"
    return _failed_line(job, str(row.seq), row.id, code, ERROR_CODES.get(code, "no verdict"))


def _moderation_line(job: JobView, row: StoredVerdict, model: Model) -> bytes:
    head = b'{"id":"batch_req_%b_%d","custom_id":%b,"response":{"status_code":200,"request_id":"req_%b_%d","body":'
    body = b'{"id":"modr-%b-%d","model":%b,"results":[%b]}},"error":null}\n'
    job_id = job.public_id.hex.encode()
    return head % (job_id, row.seq, orjson.dumps(row.id), job_id, row.seq) + body % (
        job_id, row.seq, orjson.dumps(model.name), result_json(row, model),
    )  # fmt: skip


def _completion_line(job: JobView, row: StoredVerdict, model: Model) -> bytes:
    """Render the answer to a chat completion request, as the guard model itself would give it: the canonical answer.

    Not the literal answer (`raw`): that may be about one window of a long text, and so say less than the verdict.
    """
    job_id, said = job.public_id.hex, row.judgement
    n_in, n_out = row.input_tokens, row.output_tokens
    content = canonical_answer(said.severity, said.categories, said.refusal)
    body = {
        "id": f"chatcmpl-{job_id}-{row.seq}",
        "object": "chat.completion",
        "created": int(row.done_at.timestamp()),
        "model": model.name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
    }
    response = {"status_code": 200, "request_id": f"req_{job_id}_{row.seq}", "body": body}
    return _line(job, str(row.seq), row.id, response, None)


def _failed_line(job: JobView, no: str, row_id: str | None, code: str, message: str) -> bytes:
    return _line(job, no, row_id, None, {"code": code, "message": message})


def _refused_line(job: JobView, refused: dict[str, Any]) -> bytes:
    """Render a refused line: what an immediate request would have been answered."""
    error = {
        "message": f"line {refused['line']}: {refused['detail']}",
        "type": "invalid_request_error",
        "param": None,
        "code": refused["code"],
    }
    no = f"line{refused['line']}"
    response = {"status_code": 400, "request_id": f"req_{job.public_id.hex}_{no}", "body": {"error": error}}
    return _line(job, no, refused["row_id"], response, None)


def _line(job: JobView, no: str, row_id: str | None, response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    value = {"id": f"batch_req_{job.public_id.hex}_{no}", "custom_id": row_id, "response": response, "error": error}
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)

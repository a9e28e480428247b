"""Submit files and tables through any client, direct or over HTTP."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from guardfleet.client.job import DEFAULTS, PLAIN, Job, RowSource, SubmitOptions
from guardfleet.domain.options import JobOptions
from producer.readers import AS_FOUND, Reading
from producer.sources import Inputs

MAX_TEXT_BYTES = 8 << 20  # more than any fleet accepts: the fleet itself says what is too large for it
J_co = TypeVar("J_co", bound=Job, covariant=True)


class TakesRows(Protocol[J_co]):
    """A client that accepts rows."""

    def submit_rows(self, source: RowSource, options: JobOptions = ..., how: SubmitOptions = ...) -> J_co:
        """Submit rows."""


def submit_file(
    client: TakesRows[J_co],
    path: str | os.PathLike[str] | Sequence[str],
    options: JobOptions = DEFAULTS,
    how: SubmitOptions = PLAIN,
    *,
    reading: Reading = AS_FOUND,
    max_text_bytes: int = MAX_TEXT_BYTES,
) -> J_co:
    """Submit a file, or files, folders and patterns, as one job (`-`: standard input); docs/input.md lists the formats."""
    sources = os.fspath(path) if isinstance(path, os.PathLike) else path
    return submit_input(client, Inputs(sources, reading, max_text_bytes=max_text_bytes), options, how)


def submit_input(client: TakesRows[J_co], inputs: Inputs, options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN) -> J_co:
    """Submit an input that is already open; the job gets the input's name if `options` has none.

    Raises RejectedError if the input is empty, before a job exists.
    """
    if "name" not in options.model_fields_set:
        options = options.model_copy(update={"name": inputs.name})
    try:
        job = client.submit_rows(inputs, options, how)
    finally:
        inputs.close()
    return replace(job, warnings=inputs.warnings)

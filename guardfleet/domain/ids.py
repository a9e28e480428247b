"""Public ids: what a row is called outside. A prefix says what it is of, 32 hex digits which one."""

import uuid
from dataclasses import dataclass

from guardfleet.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Kind:
    """The ids of one kind of thing."""

    prefix: str
    unknown: str = "there is no {!r}."  # said of an id that can be none of these
    also: tuple[str, ...] = ()  # prefixes that are taken too

    def of(self, public_id: uuid.UUID) -> str:
        """The id that users see and give back."""
        return self.prefix + public_id.hex

    def parse(self, label: str) -> uuid.UUID:
        """The inverse of `of`; raises NotFoundError for what can be none."""
        digits = label
        for prefix in (self.prefix, *self.also):
            digits = digits.removeprefix(prefix)
        try:
            return uuid.UUID(digits)
        except ValueError:
            raise NotFoundError(self.unknown.format(label)) from None


BATCH = Kind("batch_")  # a job, as the API calls it
JOB = Kind("job_", "there is no job {!r}.", also=(BATCH.prefix,))
FILE = Kind("file-", "there is no such file.")
OUTPUT_FILE, ERROR_FILE = Kind("file-out-"), Kind("file-err-")  # of a job, in no table: rendered when they are asked for
ENDPOINT = Kind("we_", "there is no such webhook endpoint.")
KEY = Kind("key_", "there is no key {!r} in use; `guardfleet keys list` shows all.")
EVENT = Kind("evt_")  # of a job: what has happened, and which time, stands behind the digits
MODERATION, REQUEST = Kind("modr-"), Kind("req_")  # answers; nobody gives them back

"""Public ids: a prefix that names the kind, and 32 hex digits of the row's UUID; and the one id that every installation has."""

import uuid
from dataclasses import dataclass

from guardfleet.errors import NotFoundError

DEFAULT_TENANT = 1  # the row of the tenant `default`, which the command line works for
EVERY_TENANT = 0  # owner of digests that all tenants share


@dataclass(frozen=True, slots=True)
class Kind:
    """The ids of one kind of thing."""

    prefix: str
    unknown: str = "there is no {!r}."  # message for an id that cannot be one of these
    also: tuple[str, ...] = ()  # further accepted prefixes

    def of(self, public_id: uuid.UUID) -> str:
        """Return the public id that users see and send."""
        return self.prefix + public_id.hex

    def parse(self, label: str) -> uuid.UUID:
        """Parse a public id, the inverse of `of`. Raises NotFoundError for what cannot be one."""
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
OUTPUT_FILE, ERROR_FILE = Kind("file-out-"), Kind("file-err-")  # of a job, in no table: rendered on request
ENDPOINT = Kind("we_", "there is no such webhook endpoint.")
KEY = Kind("key_", "there is no key {!r} in use; `guardfleet keys list` shows all.")
SAMPLE = Kind("sample_", "there is no such sample.")
QUEUE = Kind("queue_", "there is no such queue of reviews.")
AUDIT = Kind("audit_", "there is no such row in the audit trail.")
ERASURE = Kind("erasure_", "there is no such erasure.")
HOLD = Kind("hold_", "there is no such legal hold.")
EVENT = Kind("evt_")  # of a job: the digits are followed by the event and its number
MODERATION, REQUEST = Kind("modr-"), Kind("req_")  # of answers; never sent back

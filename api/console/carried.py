"""What a page carries from one pass to the next: signed, so that what comes back is what this tenant was given."""

import hashlib
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from api.console.asking import Ask
from api.http.problems import ProblemError

SALT = "guardfleet.console.carried"


def sealed(ask: Ask, what: str, value: Any) -> str:
    """Return a value as a form may hold it; `what`: the one page that may have it back."""
    written = _serializer(ask, what).dumps(value)
    return written if isinstance(written, str) else written.decode()


def opened(ask: Ask, what: str, given: str) -> Any:
    """Return the value. Raises ProblemError 400 for what this page did not give."""
    try:
        return _serializer(ask, what).loads(given)
    except BadData:
        raise ProblemError(400, "invalid_form", "this form is of another page, or too old: begin again.") from None


def _serializer(ask: Ask, what: str) -> URLSafeSerializer:
    newest, *others = ask.context.keyring.cursor_keys
    return URLSafeSerializer(
        [*others, newest],
        salt=f"{SALT}.{what}.{ask.caller.tenant_id}",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )

"""Who is signed in: the session's cookie, what proves that a form is this site's own, and how often a sign-in may fail.

Invariant: an action is done only for a session whose own form or script sent it. Browsers say which site a request comes from
(`Sec-Fetch-Site`, `Origin`), cookies are not sent across sites (`SameSite`), and each form has a token that only its session's
pages hold.
"""

import hashlib
import hmac
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from itsdangerous import BadSignature, Signer, URLSafeTimedSerializer
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request
from starlette.responses import Response

from api.context import Context
from api.http.problems import ProblemError
from api.http.threads import in_thread
from guardfleet.domain.actions import KEY, PERSON
from guardfleet.store import audit, sessions
from guardfleet.store.sessions import Session

COOKIE = "guardfleet"
ATTEMPT, ATTEMPT_S = "guardfleet-sign-in", 600  # of a sign-in by OpenID Connect that has begun, s
SALT = "guardfleet.console.session"
KNOWN_S = 5.0  # a revoked key, or a session that ended elsewhere, keeps its pages for this long, as it does over HTTP
MOST_KNOWN = 10_000
FAILURES = parse("10/minute")  # wrong keys from one address
FIELD, HEADER = "csrf", "x-csrf-token"


class Access:
    """The sessions of one API process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, tuple[Session, float]] = {}
        self._failures = MovingWindowRateLimiter(MemoryStorage())

    async def session_of(self, request: Request) -> Session | None:
        """Return the session of a request, and act as its person from here on; None without a valid one."""
        token = self.token_of(request)
        session = None if token is None else await self._find(token)
        if session is not None:
            request.state.caller = session.caller  # named in the log, and from here on its connection is kept
            kind = KEY if session.by_key else PERSON
            audit.act_as(audit.Actor(kind, session.who, request.state.request_id))
        return session

    async def _find(self, token: str) -> Session | None:
        session, until = self._known.get(token, (None, 0.0))
        if session is not None and time.monotonic() < until:
            return session
        session = await in_thread(sessions.find, self._context.db, token)
        self.forget(token)
        if session is not None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[token] = session, time.monotonic() + KNOWN_S
        return session

    def forget(self, token: str) -> None:
        """Look a session up again at its next request: it ended, or what it prefers changed."""
        self._known.pop(token, None)

    def token_of(self, request: Request) -> str | None:
        """Return the token in the cookie; None if there is none, or if this installation has not signed it."""
        signed = request.cookies.get(self.cookie(request))
        if signed is None:
            return None
        try:
            return self._signer().unsign(signed).decode()
        except (BadSignature, UnicodeDecodeError):
            return None

    def remember(self, request: Request, response: Response, token: str) -> None:
        """Give the browser its cookie."""
        hours = self._context.settings.console.session_hours
        self._give(request, response, COOKIE, self._signer().sign(token).decode(), int(3600 * hours))

    async def end(self, request: Request) -> None:
        """End the session of this browser, if it has one: nobody else goes on with it."""
        token = self.token_of(request)
        if token is not None:
            await in_thread(sessions.end, self._context.db, token)
            self.forget(token)

    def clear(self, request: Request, response: Response) -> None:
        """Take the cookie back."""
        self._give(request, response, COOKIE, "", 0)

    def cookie(self, request: Request, name: str = COOKIE) -> str:
        """Return a cookie's name: over TLS, one that browsers take from no other host and from no unencrypted page."""
        return f"__Host-{name}" if self.is_secure(request) else name

    def is_secure(self, request: Request) -> bool:
        """Return whether the browser's connection is encrypted, as far as this process or its settings know."""
        public = self._context.settings.console.public_url
        return request.url.scheme == "https" or bool(public and public.startswith("https:"))

    def begin_attempt(self, request: Request, response: Response, attempt: str) -> None:
        """Give the browser what a sign-in by OpenID Connect must come back with."""
        self._give(request, response, ATTEMPT, str(self._attempts().dumps(attempt)), ATTEMPT_S)

    def attempt_of(self, request: Request) -> str | None:
        """Return what this browser's sign-in must come back with; None if it began none in the last minutes."""
        try:
            found: str = self._attempts().loads(request.cookies.get(self.cookie(request, ATTEMPT), ""), max_age=ATTEMPT_S)
        except BadSignature:
            return None
        return found

    def end_attempt(self, request: Request, response: Response) -> None:
        """Forget it: it signs in once."""
        self._give(request, response, ATTEMPT, "", 0)

    def csrf(self, token: str) -> str:
        """Return what the forms of a session's pages hold."""
        return hmac.digest(self._keys()[0], b"csrf|" + token.encode(), "sha256").hex()

    def require_own_form(self, request: Request, given: str) -> None:
        """Raise ProblemError 403 unless the session's own page sent this."""
        require_same_site(request, self._context.settings.console.public_url)
        token = self.token_of(request)
        if token is None or not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.csrf(token).encode()):
            raise ProblemError(403, "foreign_form", "this form is not of your session: load the page again, and repeat it.")

    def count_failure(self, request: Request) -> None:
        """Count a wrong key of an address; ProblemError 429 if there are too many within a minute.

        A right key is taken all the same: behind a proxy all people may share an address, and nobody shall lock them out.
        """
        if not self._failures.hit(FAILURES, _address(request)):
            detail = "too many wrong keys came from your address: wait a minute."
            raise ProblemError(429, "too_many_failures", detail, headers={"Retry-After": "60"})

    def _give(self, request: Request, response: Response, name: str, value: str, seconds: int) -> None:
        """Set a cookie that no script reads and no other site sends; after 0 s, the browser forgets it."""
        response.set_cookie(
            self.cookie(request, name), value, max_age=seconds, path="/",
            secure=self.is_secure(request), httponly=True, samesite="lax",
        )  # fmt: skip

    def _signer(self) -> Signer:
        newest, *others = self._keys()
        return Signer([*others, newest], salt=SALT, key_derivation="hmac", digest_method=hashlib.sha256)

    def _attempts(self) -> URLSafeTimedSerializer:
        newest, *others = self._keys()
        digest = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeTimedSerializer([*others, newest], salt=f"{SALT}.attempt", signer_kwargs=digest)

    def _keys(self) -> Sequence[bytes]:
        return [hmac.digest(key, SALT.encode(), "sha256") for key in self._context.keyring.cursor_keys]


def require_same_site(request: Request, public_url: str | None = None) -> None:
    """Raise ProblemError 403 if the browser says that another site's page sent this."""
    site = request.headers.get("sec-fetch-site")
    try:
        origin = urlsplit(request.headers.get("origin", ""))
    except ValueError:
        origin = urlsplit("")
    own = {request.headers.get("host", ""), urlsplit(public_url or "").netloc} - {""}
    is_own = origin.netloc in own or origin.hostname in own  # a proxy may leave the port out of Host
    if site not in (None, "same-origin", "none") or ("origin" in request.headers and not is_own):
        raise ProblemError(403, "foreign_site", "another site's page sent this: open the console's own page, and repeat it.")


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"

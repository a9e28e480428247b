"""OpenID Connect, the code flow with PKCE: an issuer vouches for somebody, and the settings say what that person may do.

Invariant: nobody is signed in except by an ID token that the issuer signed for this client, for the sign-in that this very browser
began: its state, nonce and verifier are in a cookie that no other browser has (OpenID Connect Core 1.0, 3.1; RFC 7636).
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import urlencode, urlsplit

import httpx2
import orjson
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.jwk import KeySet

from api.http.problems import ProblemError
from guardfleet.domain.labels import MOST_AUTHOR
from guardfleet.domain.scopes import ROLES
from guardfleet.errors import RetryableError
from guardfleet.settings.groups import ConsoleSettings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from guardfleet.store.sessions import Person

# Signatures by a private key of the issuer's: with a shared secret, or none, anybody who knows the client could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
TIMEOUT_S = 10.0
MOST_BYTES = 1 << 20  # of an answer of the issuer
LEEWAY_S = 60  # between the clocks
CALLBACK = "/console/sign-in/callback"
PROVIDER = "identity provider"
MOST_SUBJECT = 255  # characters (OpenID Connect Core 1.0, 2)
NAMES = ("name", "email", "preferred_username")  # claims by which a person is called, the first that there is


class Attempt(NamedTuple):
    """A sign-in that a browser began: what it must come back with, and where it wanted to go."""

    state: str
    nonce: str
    verifier: str
    to: str


def attempt(to: str) -> Attempt:
    """Begin a sign-in."""
    return Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), to)


class Issuer:
    """The identity provider that the settings name."""

    def __init__(self, settings: ConsoleSettings, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        assert settings.oidc_issuer  # noqa: S101 - the settings are whole or refused
        assert settings.oidc_client_secret  # noqa: S101
        self._issuer, self._secret = settings.oidc_issuer, settings.oidc_client_secret.get_secret_value()
        self._settings, self._transport = settings, transport

    async def address(self, begun: Attempt) -> str:
        """Return where to send the browser."""
        known = await self._known()
        return f"{known['authorization_endpoint']}?" + urlencode({
            "response_type": "code", "client_id": self._settings.oidc_client_id, "redirect_uri": self._redirect,
            "scope": "openid profile email", "state": begun.state, "nonce": begun.nonce,
            "code_challenge": create_s256_code_challenge(begun.verifier), "code_challenge_method": "S256",
        })  # fmt: skip

    async def claims(self, begun: Attempt, code: str) -> Mapping[str, Any]:
        """Return what the issuer says of the person, for the code it gave. Raises ProblemError 403."""
        known = await self._known()
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect, "code_verifier": begun.verifier}
        answer = await self._asked(known["token_endpoint"], data=given)
        found = await self._asked(known["jwks_uri"])
        try:
            token = jwt.decode(str(answer["id_token"]), KeySet.import_key_set(found), algorithms=ALGORITHMS)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": self._issuer},
                    "aud": {"essential": True, "value": self._settings.oidc_client_id},
                },
                {"nonce": begun.nonce, "client_id": self._settings.oidc_client_id},
            )
            claims.validate(leeway=LEEWAY_S)
        except Exception as error:  # two libraries, each with kinds of its own: whatever is wrong with a token, it is no token
            raise refused() from error
        return dict(claims)

    @property
    def _redirect(self) -> str:
        return f"{self._settings.public_url}{CALLBACK}"

    async def _known(self) -> Mapping[str, str]:
        """Return the issuer's addresses, which its own document names."""
        found = await self._asked(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        wanted = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        scheme = urlsplit(self._issuer).scheme
        if found.get("issuer") != self._issuer or any(urlsplit(str(found.get(name))).scheme != scheme for name in wanted):
            raise _away("its configuration names another issuer, or addresses without TLS")
        return {name: str(found[name]) for name in wanted}

    async def _asked(self, url: str, *, data: Mapping[str, str] | None = None) -> Any:
        credentials = (str(self._settings.oidc_client_id), self._secret)
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_S, transport=self._transport) as client:
                method, auth = ("GET", None) if data is None else ("POST", credentials)
                async with client.stream(method, url, data=data, auth=auth, headers={"accept": "application/json"}) as answer:
                    body = b""
                    async for part in answer.aiter_bytes():
                        body += part
                        if len(body) > MOST_BYTES:
                            raise _away("its answer is too large")
            if data is not None and 400 <= answer.status_code < 500:  # noqa: PLR2004 - it knows no such code
                raise refused()
            answer.raise_for_status()
            return _object(body)
        except (httpx2.HTTPError, ValueError) as error:
            raise _away(type(error).__name__) from error


def person_of(db: Database, claims: Mapping[str, Any], settings: ConsoleSettings) -> Person:
    """Return who signs in, with the roles that the settings grant. ProblemError 403 for somebody without any, and for nobody."""
    subject = claims.get("sub")
    if not _is_shown(subject, MOST_SUBJECT):
        detail = "your organisation vouches for nobody by name (the claim `sub`): ask whoever runs its sign-in."
        raise ProblemError(403, "no_subject", detail)
    given = claims.get(settings.oidc_claim, ())
    values = (
        [given] if isinstance(given, str) else [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
    )
    tenant, roles = _granted(values, settings.oidc_roles)
    if not roles:
        raise ProblemError(403, "no_role", "your organisation knows you, but guardfleet grants you no role: ask its operator.")
    name = next((name for one in NAMES if _is_shown(name := claims.get(one))), subject)
    scopes = sorted({scope for role in roles for scope in ROLES[role]})
    return Person(_stable(subject), name, keys.tenant_id(db, tenant), scopes)


def _is_shown(value: object, most: int | None = None) -> TypeGuard[str]:
    """Return whether a claim names somebody by characters that a page, a row and a log can have."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and (most is None or len(value) <= most)


def _granted(values: Sequence[str], grants: Sequence[str]) -> tuple[str, list[str]]:
    """Return the tenant of the first grant that applies, and all roles there."""
    found: list[tuple[str, str]] = []
    for grant in grants:
        claimed, _, role = grant.rpartition("=")
        role, _, tenant = role.partition("@")
        if claimed in values:
            found.append((tenant or "default", role))
    return (found[0][0], [role for tenant, role in found if tenant == found[0][0]]) if found else ("", [])


def _stable(subject: str) -> str:
    """Return the subject as the name of an author: short enough for a label, and no other subject's."""
    who = f"oidc:{subject}"
    return who if len(who) <= MOST_AUTHOR else f"oidc:{hashlib.sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"


def refused() -> ProblemError:
    """Return the answer to a sign-in that the issuer does not vouch for."""
    return ProblemError(403, "sign_in_refused", "this sign-in was not completed, or is too old: begin it again.")


def _away(why: str) -> RetryableError:
    return RetryableError(f"the {PROVIDER} does not answer as it should: {why}")


def _object(body: bytes) -> Any:
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - as orjson raises for what is no JSON
    return found

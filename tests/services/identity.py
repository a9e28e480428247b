"""An identity provider on loopback: it vouches for whom a test says, and lies as a test asks."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.services.fleet import until
from tests.services.patience import patience
from tests.services.servers import free_port

CLIENT_ID, CLIENT_SECRET = "guardfleet-test", "not-a-secret"


@dataclass
class Provider:
    """What it says of the next person, and what is wrong with it."""

    url: str
    claims: dict[str, Any] = field(default_factory=dict)  # over those of a sound token
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, auto_kid=True))
    signs_with: Any = None
    algorithm: str = "RS256"
    is_away: bool = False
    nonces: dict[str, str] = field(default_factory=dict)  # by code
    challenges: dict[str, str] = field(default_factory=dict)

    def token(self, code: str) -> str:
        """The ID token for a code."""
        now = int(time.time())
        sound = {"iss": self.url, "aud": CLIENT_ID, "sub": "u-1", "iat": now, "exp": now + 300, "nonce": self.nonces[code]}
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, sound | self.claims, self.signs_with or self.key,
                          algorithms=[self.algorithm])  # fmt: skip


@contextmanager
def identity_provider() -> Iterator[Provider]:
    """Serve one for as long as the block lasts."""
    port = free_port()
    provider = Provider(f"http://127.0.0.1:{port}")

    async def configuration(_: Request) -> Response:
        if provider.is_away:
            return Response("gone", 502)
        named = {
            name: f"{provider.url}/{path}"
            for name, path in (("authorization_endpoint", "a"), ("token_endpoint", "t"), ("jwks_uri", "k"))
        }
        return JSONResponse({"issuer": provider.url, **named})

    async def authorize(request: Request) -> Response:
        asked = request.query_params
        code = f"code-{len(provider.nonces)}"
        provider.nonces[code], provider.challenges[code] = asked["nonce"], asked["code_challenge"]
        return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}", 303)

    async def token(request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        if form["code"] not in provider.nonces or not form["code_verifier"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": provider.token(form["code"])})

    async def keys(_: Request) -> Response:
        return JSONResponse(KeySet([provider.key]).as_dict(private=False))

    routes = [Route("/.well-known/openid-configuration", configuration), Route("/a", authorize), Route("/k", keys)]
    app = Starlette(routes=[*routes, Route("/t", token, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),), daemon=True)
    thread.start()
    until(lambda: server.started, what="the identity provider")
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(patience(20))


def path_of(url: str) -> str:
    """The path and query of an address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"

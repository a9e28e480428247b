#!/usr/bin/env python3
"""A receiver for guardfleet's webhooks: verifies the signature, then prints what happened. Standard library only.

python examples/receive_webhook.py whsec_... [PORT]
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE_S = 300  # an older timestamp is a replay
MAX_BYTES = 65_536


def is_authentic(secret: str, headers: Any, body: bytes) -> bool:
    """Return whether the body was signed with the secret a moment ago (Standard Webhooks, scheme v1)."""
    event_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, f"{event_id}.{stamp}.".encode() + body, hashlib.sha256)).decode()
    signatures = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(signature, f"v1,{expected}") for signature in signatures)


def make_receiver(secret: str, on_event: Callable[[dict[str, Any]], None], port: int = 0) -> ThreadingHTTPServer:
    """Make a server on loopback that calls `on_event` once for each authentic event, however often it is delivered."""
    seen: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("content-length", 0)), MAX_BYTES))
            authentic = is_authentic(secret, self.headers, body)
            self.send_response(204 if authentic else 401)
            self.end_headers()
            event_id = self.headers.get("webhook-id", "")
            if authentic and event_id not in seen:  # at least once can mean twice: the id shows it
                seen.add(event_id)
                on_event(json.loads(body))

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Receive until Ctrl-C."""
    if len(sys.argv) < 2:  # noqa: PLR2004
        sys.exit(__doc__)
    server = make_receiver(
        sys.argv[1],
        lambda event: print(event["type"], json.dumps(event["data"])),
        int(sys.argv[2]) if len(sys.argv) > 2 else 9000,  # noqa: PLR2004
    )
    print(f"receiving at http://127.0.0.1:{server.server_port}/")
    server.serve_forever()


if __name__ == "__main__":
    main()

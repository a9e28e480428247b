#!/usr/bin/env python3
"""Run the main job on a few hundred real texts, end to end: what `make demo` runs.

Starts a webhook receiver of its own, then calls `guardfleet scan` as you would.
"""

import base64
import os
import pathlib
import secrets
import subprocess
import sys
import threading
from typing import Any

from receive_webhook import make_receiver

HERE = pathlib.Path(__file__).parent


def main() -> int:
    """Run the demo; return guardfleet's exit status."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    events: list[dict[str, Any]] = []
    receiver = make_receiver(secret, events.append)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    command = [
        str(pathlib.Path(sys.executable).with_name("guardfleet")),
        *("scan", str(HERE / "texts.jsonl"), "-o", "verdicts.jsonl"),
        *("--callback-url", f"http://127.0.0.1:{receiver.server_port}/", "--callback-secret", secret),
    ]
    print("$ guardfleet scan examples/texts.jsonl -o verdicts.jsonl --callback-url http://127.0.0.1:.../", flush=True)
    status = subprocess.run(command, env=os.environ, check=False).returncode  # noqa: S603
    receiver.shutdown()
    sys.stdout.flush()
    for event in events:
        data = event["data"]
        print(f"webhook received and verified: {event['type']} for {data['job']}, {data['request_counts']['completed']} texts")
    if status == 0 and pathlib.Path("verdicts.jsonl").exists():
        with pathlib.Path("verdicts.jsonl").open(encoding="utf-8") as file:
            print("the first verdict:", file.readline()[:400].rstrip(), sep="\n  ")
    return status


if __name__ == "__main__":
    sys.exit(main())

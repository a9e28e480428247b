"""Submit texts over HTTP, watch them being judged, read the verdicts as they come.

GUARDFLEET_API_KEY=gf_... python examples/submit_and_poll.py http://127.0.0.1:8080
"""

import os
import sys

from guardfleet import Client, JobOptions

TEXTS = [
    "What is the capital of France?",
    {"id": "greeting", "text": "Good morning, everyone!", "metadata": {"channel": "general"}},
    {"id": "dialogue", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! How can I help?"}]},
]


def main(url: str) -> None:
    """Submit, and print each verdict in the order they are made."""
    with Client(url, os.environ["GUARDFLEET_API_KEY"]) as client:
        batch = client.submit(TEXTS, JobOptions(name="example"))
        print(f"{batch.id}: {batch.total} texts accepted")
        for verdict in client.results(batch.id):
            print(f"{verdict['id']}: {verdict['rationale']}")
        print(client.status(batch.id).status)


if __name__ == "__main__":
    main(sys.argv[1])

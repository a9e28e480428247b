"""Submit texts over HTTP, watch them being judged, read the verdicts as they come.

GUARDFLEET_API_KEY=gf_... python examples/submit_and_poll.py http://127.0.0.1:8080
"""

import os
import sys

from guardfleet.client.direct import Options
from guardfleet.client.http import HttpProducer

TEXTS = [
    "What is the capital of France?",
    {"id": "greeting", "text": "Good morning, everyone!", "metadata": {"channel": "general"}},
    {"id": "dialogue", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! How can I help?"}]},
]


def main(url: str) -> None:
    """Submit, and print each verdict in the order they are made."""
    with HttpProducer(url, os.environ["GUARDFLEET_API_KEY"]) as producer:
        batch = producer.submit(TEXTS, Options(name="example"))
        print(f"{batch.id}: {batch.total} texts taken")
        for verdict in producer.results(batch.id):
            print(f"{verdict['id']}: {verdict['rationale']}")
        print(producer.status(batch.id).status)


if __name__ == "__main__":
    main(sys.argv[1])

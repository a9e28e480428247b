"""Turn a PostgreSQL read-only in the middle of a job, for as long as asked, and see what the fleet does. Prints one JSON.

python benchmarks/read_only.py --seconds 25 --texts 20000
"""

import argparse
import json
import sys
from dataclasses import asdict

from tests.services.read_only import weather
from tests.services.receiver import Receiver
from tests.services.servers import own_servers


def main() -> int:
    """Run the experiment; return 0 if nothing was lost or ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    asked = parser.parse_args()
    networks = ("127.0.0.0/8",)
    with own_servers(asked.broker, instant_ms_per_batch=10.0, webhook_allow_networks=networks) as (settings, server, folder):
        receiver = Receiver()
        try:
            seen = weather(settings, server, receiver, folder, texts=asked.texts, seconds=asked.seconds)
        finally:
            receiver.server.shutdown()
    print(json.dumps(vars(asked) | asdict(seen)))
    fine = (seen.lost, seen.double, seen.ended, seen.canaries) == (0, 0, [], []) and set(seen.writes) == {"503 retry-after"}
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

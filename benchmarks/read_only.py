"""PostgreSQL of its own turns read-only in the middle of a job, for as long as is asked; what the fleet does. Prints one JSON.

python benchmarks/read_only.py --seconds 25 --texts 20000
"""

import argparse
import json
import pathlib
import sys
import tempfile
from dataclasses import asdict

from guardfleet.sealing import new_secret_key
from guardfleet.settings import load_settings
from tests.services.read_only import weather
from tests.services.receiver import Receiver
from tests.services.servers import OwnPostgres, own_broker


def main() -> int:
    """Run it; 0 where nothing was lost or ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        server, broker, receiver = OwnPostgres(folder), own_broker(asked.broker, folder), Receiver()
        try:
            server.start()
            broker.start()
            settings = load_settings(
                database_url=server.url,
                broker_url=broker.url,
                secret_key=new_secret_key(),
                data_dir=folder,
                engine="instant",
                instant_ms_per_batch=10.0,
                webhook_allow_networks=("127.0.0.0/8",),
            )
            seen = weather(settings, server, receiver, folder, texts=asked.texts, seconds=asked.seconds)
        finally:
            receiver.server.shutdown()
            broker.stop()
            server.stop()
    print(json.dumps(vars(asked) | asdict(seen)))
    fine = (seen.lost, seen.double, seen.ended, seen.canaries) == (0, 0, [], []) and set(seen.writes) == {"503 retry-after"}
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

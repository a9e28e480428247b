"""Two people review one queue at once through the console's pages; one is killed, and a third takes over. Prints one JSON.

python benchmarks/two_reviewers.py --texts 500
"""

import argparse
import json
import socket
import sys
from dataclasses import asdict

from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database
from tests.services.servers import own_servers
from tests.services.two_reviewers import Seen, experiment


def main() -> int:
    """Run the experiment; return 0 if no text was decided twice, none was lost, and both alphas are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=500)
    asked = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with own_servers("redis", api_port=port) as (settings, _, folder):
        db = Database(settings.required("database_url"), pool_size=1)
        migrate.upgrade(db)
        db.close()
        seen = experiment(settings, folder, texts=asked.texts)
    print(json.dumps(vars(asked) | asdict(seen)))
    return 0 if is_fine(seen, asked.texts) else 1


def is_fine(seen: Seen, texts: int) -> bool:
    """Return whether the rows are as they must be."""
    return (seen.texts, seen.twice, seen.lost, seen.orphans) == (texts, 0, 0, 0) and seen.alpha == seen.alpha_by_krippendorff


if __name__ == "__main__":
    sys.exit(main())

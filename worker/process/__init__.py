"""A worker process from start to end: entry points, order, watchdog, consumers. The steps of a shard do not belong here."""

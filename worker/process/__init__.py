"""A worker process from start to end: entry points, order, watchdog, consumers. No step of a shard stands here."""

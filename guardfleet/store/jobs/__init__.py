"""Jobs: created, controlled, read, ended, purged. The life of one shard belongs in `store/shards`."""

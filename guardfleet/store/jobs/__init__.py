"""Jobs: created, controlled, read, ended, purged. What happens to one shard belongs in `store/shards`."""

"""Shards: published, leased, completed, split. What concerns a whole job belongs in `store/jobs`."""

"""Shards: published, leased, completed, bisected. What concerns a whole job belongs in `store/jobs`."""

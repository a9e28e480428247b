"""The embedded stack: real PostgreSQL and Valkey, from wheels, under a small supervisor of guardfleet's own."""

"""The embedded stack: real PostgreSQL and Valkey, from wheels, under guardfleet's own small supervisor."""

"""guardfleet: a queue-driven batch moderation worker fleet."""

__version__ = "0.1.0"

"""What guardfleet says of itself: logs, metrics, probes. Never a text, never a secret."""

"""How guardfleet reports on itself: logs, metrics, probes. Never a text, never a secret."""

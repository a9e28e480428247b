"""The fleet: workers, models, health, deliveries, keys, sessions, the audit trail. What they say is asked of the store."""

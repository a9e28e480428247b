"""guardfleet's jobs and verdicts in OpenAI's shapes: pure mappings. Routes and queries do not belong here."""

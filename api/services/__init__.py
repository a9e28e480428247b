"""What the API does beside its requests: stores files, ingests them, waits for verdicts. Answers over HTTP do not belong here."""

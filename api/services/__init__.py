"""What the API does besides requests: stores files, ingests them, waits for verdicts. HTTP answers do not belong here."""

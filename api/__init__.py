"""The HTTP API: submit, poll, read."""

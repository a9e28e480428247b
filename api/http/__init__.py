"""What HTTP needs in every route: heads, errors, limits, idempotency. Knows no job, verdict or file of guardfleet."""

"""What HTTP asks of every route: heads, errors, limits, idempotency. Knows no job, verdict or file of guardfleet."""

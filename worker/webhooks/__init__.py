"""One webhook delivery: composed, signed, sent, recorded. Its rows belong in `guardfleet/store/events`."""

"""What the words of guardfleet mean: values and pure functions, no I/O."""

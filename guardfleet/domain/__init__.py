"""What a row means: pure functions and values, no I/O."""

"""What a row of input means: its text, id, metadata or its line-numbered error. Values in, values out: no I/O."""

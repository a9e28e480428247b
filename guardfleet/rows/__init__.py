"""What a row of input means: its text, id and metadata, or an error with its line number. Pure values, no I/O."""

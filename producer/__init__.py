"""The producer: turn files and tables into jobs."""

"""The producer: texts in, a job out."""

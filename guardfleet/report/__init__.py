"""A job's report: one HTML file for people, and how values are written for them; no command, no route, no SQL."""

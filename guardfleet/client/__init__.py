"""What applications embed: texts in, verdicts out, directly or over HTTP. Imports nothing named producer, api or worker."""

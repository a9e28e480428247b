"""The engine: texts in, answers out. A library of its own that needs torch and transformers, and neither Celery nor a database."""

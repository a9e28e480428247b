"""The engine: texts in, answers out. A library of its own that needs torch and transformers, but neither Celery nor a database."""

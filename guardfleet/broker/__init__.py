"""Messages: the one Celery configuration. What a message means belongs to whoever sends or takes it."""

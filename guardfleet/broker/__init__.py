"""Messages: the one Celery configuration. What a message means belongs to its sender and its receiver."""

"""The worker: a Celery application whose tasks moderate shards through one engine per process."""

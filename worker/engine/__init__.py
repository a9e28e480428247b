"""The engine: texts in, answers out. A library of its own that needs torch and transformers, but neither Celery nor a database."""

import os

# OpenMP reads it when torch is loaded. A thread that waits for another spins, by default for milliseconds: beside any other busy
# process the other one may not be running, and the demo model took 36 s to load instead of 6.5 (2 cores, one of them busy).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

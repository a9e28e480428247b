"""Policies: what to do with a verdict. A table of rules, its checks and its evaluation; no SQL, and no text ever gets here."""

import os

# numpy's linear algebra, of which nothing here makes use, starts a thread for each core when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

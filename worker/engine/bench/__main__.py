"""`python -m worker.engine.bench`, for machines where only torch and transformers are installed."""

import sys

from worker.engine.bench.cli import main

sys.exit(main(sys.argv[1:]))

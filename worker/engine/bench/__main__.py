"""`python -m worker.engine.bench`, where nothing but torch and transformers is installed."""

import sys

from worker.engine.bench.cli import main

sys.exit(main(sys.argv[1:]))

"""The names of the ways to draw a sample, and the bound of its seed."""

RANDOM, UNCERTAIN, DISAGREEMENT, SLICE = "random", "uncertain", "disagreement", "slice"
DESIGNS = (RANDOM, UNCERTAIN, DISAGREEMENT, SLICE)  # the number of one is part of its seed
MOST_SEED = 2**53 - 1  # which every reader of JSON keeps

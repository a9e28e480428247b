"""One forward pass over packed rows: network, attention, kernels. Knows tokens, not texts."""

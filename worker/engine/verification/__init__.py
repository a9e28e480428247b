"""Check at load that the packed pass agrees with the reference on this machine. Serves no verdict."""

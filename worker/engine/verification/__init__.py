"""Whether the packed pass agrees with the reference on this machine, asked at load. Serves no verdict."""

"""The implementation of each command, one module per command. Options that several share belong in `guardfleet/cli`."""

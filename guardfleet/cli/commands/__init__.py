"""What each command does, one module a command. Options that several share belong in `guardfleet/cli`."""

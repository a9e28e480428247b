"""`guardfleet bench pipeline`: the cost of a run on this machine. Production code does not belong here."""

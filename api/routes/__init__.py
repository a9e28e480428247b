"""The operations of the API, one module per resource. Rules that other faces share belong in `guardfleet/jobs`, never here."""

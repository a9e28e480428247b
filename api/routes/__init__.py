"""The operations of the API, one module a resource. Rules that other faces share belong in `guardfleet/jobs`, never here."""

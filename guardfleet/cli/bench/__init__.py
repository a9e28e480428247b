"""`guardfleet bench pipeline`: what a run costs on this machine. Nothing that production needs may stand here."""

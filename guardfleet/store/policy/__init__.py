"""What decides of texts: versions of policies and of lists, and the decisions. No rule is evaluated here."""

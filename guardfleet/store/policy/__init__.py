"""What decides: versions of policies, also of those for prompts, and of lists, and the decisions. No rule is evaluated here."""

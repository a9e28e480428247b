"""Lists: terms, patterns and whole texts that are looked for before the model is asked; their checks and their matching. No SQL."""

"""From prompts to answers: drafts, passes, and reading the logits. Arithmetic belongs in `forward`."""

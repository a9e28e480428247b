"""From prompts to answers: drafts, passes, and what the logits say. Arithmetic belongs in `forward`."""

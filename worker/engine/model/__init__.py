"""A model's files, weights and memory, checked before they are trusted. Nothing here runs a pass for a text."""

"""Policies: their versions read, edited, tried on what is stored, applied. What a policy means is said elsewhere."""

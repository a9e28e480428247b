"""Lists: their versions read, edited, tried on a text, applied. What matches is said elsewhere."""

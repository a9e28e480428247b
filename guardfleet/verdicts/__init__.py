"""A verdict between its row in the database and whoever reads it."""

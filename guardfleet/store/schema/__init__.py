"""The tables and the view, as they are after all migrations. No query stands here."""

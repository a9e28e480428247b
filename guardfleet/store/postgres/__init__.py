"""The way to PostgreSQL: connections, their pool, transactions, what errors mean, locks of a session. It knows no table."""

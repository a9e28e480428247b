"""The way to PostgreSQL: connections, their pool, transactions, what errors mean, session locks. It knows no table."""

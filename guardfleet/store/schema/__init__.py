"""The tables and the view, as they are after all migrations: SQLAlchemy models for Alembic and for the test that compares the two.

No query stands here, and no process loads this: statements are psycopg's.
"""

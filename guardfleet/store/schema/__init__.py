"""The tables and the view as they are after all migrations: SQLAlchemy models for Alembic and for the test that compares the two.

There are no queries here, and only migrating loads this: statements are sent by psycopg.
"""

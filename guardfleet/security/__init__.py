"""Encryption at rest, signatures, and which addresses may be called. Keys are passed in as arguments."""

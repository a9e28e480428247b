"""Encryption at rest, signatures, and which addresses may be called. Keys come in as arguments."""

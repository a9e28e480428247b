"""Erasures: one person's data, or a whole job, removed on request, with a receipt; and the legal holds that forbid it."""

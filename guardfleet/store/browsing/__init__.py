"""Verdicts found over all jobs of a tenant, and one verdict with all that is known of it. No page of one job's results."""

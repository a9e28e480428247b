"""The only place that speaks SQL: one transition, one function, one transaction."""

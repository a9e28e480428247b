"""An engine without a model, for load runs and fault tests. Production never uses it."""

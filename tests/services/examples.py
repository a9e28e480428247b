"""Hypothesis without deadlines: how long an example takes depends on what else the machine is doing."""

from hypothesis import settings

settings.register_profile("guardfleet", deadline=None)
settings.load_profile("guardfleet")

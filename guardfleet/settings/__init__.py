"""Every setting, with its bound. Built once at an entry point and passed down; nothing else reads the environment."""

from guardfleet.settings.names import ENV_PREFIX, variable_of
from guardfleet.settings.settings import Settings, load_settings
from guardfleet.settings.tuning import LEASE_RENEWALS, Tuning

__all__ = ["ENV_PREFIX", "LEASE_RENEWALS", "Settings", "Tuning", "load_settings", "variable_of"]

"""How long an example of hypothesis takes says what else the machine is doing."""

from hypothesis import settings

settings.register_profile("guardfleet", deadline=None)
settings.load_profile("guardfleet")

"""The settings as far as they can be used: what is wrong with them is reported, and the rest is examined all the same."""

import difflib
import os
import re
from collections.abc import MutableMapping

from pydantic import SecretStr

from guardfleet.cli.doctor.findings import TroubleError
from guardfleet.errors import ConfigurationError
from guardfleet.settings import ENV_PREFIX, Settings, load_settings, variable_of
from guardfleet.settings.names import PLACES, renamed
from guardfleet.settings.settings import is_known

VARIABLE = re.compile(rf"{ENV_PREFIX}\w+")
FIELD = re.compile(r'for field "(\w+)"')  # as pydantic names what it cannot parse
DATABASE, KEY = f"{ENV_PREFIX}DATABASE_URL", f"{ENV_PREFIX}SECRET_KEY"


class Environment:
    """The settings of this process's environment, without those that cannot be used, which `wrong` names."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self.wrong: list[str] = []
        self._environ = environ
        self.settings = self._usable()

    def check(self) -> str:
        """Say how many settings there are. Raises TroubleError with all that are wrong."""
        if self.wrong:
            raise TroubleError(
                " ".join(self.wrong), "correct them: no other command starts; the checks below were made without them."
            )
        n = sum(name.startswith(ENV_PREFIX) for name in self._environ)
        return f"{n} set in the environment, all known" if n else "none set in the environment, so the defaults"

    def _usable(self) -> Settings:
        """Load the settings; take away what is refused, and load again."""
        keyless: str | None = None
        while True:
            try:
                settings = load_settings()
            except ConfigurationError as error:
                refused = self._refused(str(error))
                if not refused:
                    raise
                self.wrong.append(self._told(str(error), refused))
                taken = {name: self._environ.pop(name) for name in refused}
                if KEY in str(error) and list(taken) == [DATABASE]:
                    keyless = taken[DATABASE]  # it is right, and its checks can do without the key
            else:
                return settings if keyless is None else settings.but(database_url=SecretStr(keyless))

    def _refused(self, said: str) -> list[str]:
        """Return the variables that an error is about, under the names that they were given by."""
        named = VARIABLE.findall(said) + [f"{ENV_PREFIX}{field.upper()}" for field in FIELD.findall(said)]
        old = {new: name for name, new in renamed(self._environ).items()}
        found = [name for one in named for name in (one, old.get(one, one)) if name in self._environ]
        if not found and KEY in named and DATABASE in self._environ:
            found = [DATABASE]
        return list(dict.fromkeys(found))

    def _told(self, said: str, refused: list[str]) -> str:
        known = sorted({variable_of(name) for name in PLACES} | {ENV_PREFIX + name.upper() for name in Settings.model_fields})
        meant = {name: difflib.get_close_matches(name, known, 1, 0.8) for name in refused if not is_known(name)}
        hints = [f"{name} is perhaps {near[0]}." for name, near in meant.items() if near]
        lines = [line if line.endswith(".") else f"{line}." for line in said.splitlines()]
        return " ".join([*lines, *hints])

"""Which user the embedded servers run as, and files that only it can read. PostgreSQL refuses to run as root."""

import os
import pathlib
import pwd
import shutil
from dataclasses import dataclass

from guardfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Owner:
    """The servers' user; `switch` tells subprocess to become it, and is empty when we already are."""

    uid: int
    gid: int

    @classmethod
    def here(cls) -> "Owner":
        """`nobody` when we are root, else ourselves."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def switch(self) -> dict[str, object]:
        """Keyword arguments for subprocess."""
        return {} if self.uid == os.geteuid() else {"user": self.uid, "group": self.gid, "extra_groups": ()}

    def own(self, folder: pathlib.Path) -> pathlib.Path:
        """Make the folder if need be, private to the owner."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            os.chown(folder, self.uid, self.gid)
            folder.chmod(0o700)
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be made ({error.strerror}): set GUARDFLEET_DATA_DIR to a folder you own."
            ) from error
        return folder

    def reachable(self, binaries: pathlib.Path, copy_to: pathlib.Path) -> pathlib.Path:
        """The folder of binaries, or a copy that the owner can read (an install under root's home is closed to others)."""
        if self.uid == os.geteuid() or all(_is_open(parent) for parent in (binaries, *binaries.resolve().parents)):
            return binaries
        if not copy_to.exists():
            part = copy_to.with_name(copy_to.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(binaries, part, symlinks=True)
            part.rename(copy_to)
        return copy_to


def _is_open(folder: pathlib.Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)

"""The user that runs the embedded servers, and files that only it can read. PostgreSQL refuses to run as root."""

import errno
import os
import pathlib
import pwd
import shutil
import stat
from dataclasses import dataclass

from guardfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Owner:
    """The servers' user. `switch` makes subprocess change to it, and is empty if we are it already."""

    uid: int
    gid: int

    @classmethod
    def here(cls) -> "Owner":
        """Return `nobody` if we are root, else ourselves."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def switch(self) -> dict[str, object]:
        """Keyword arguments for subprocess."""
        return {} if self.uid == os.geteuid() else {"user": self.uid, "group": self.gid, "extra_groups": ()}

    def own(self, folder: pathlib.Path) -> pathlib.Path:
        """Make the folder if it is missing, private to the owner."""
        make_folder(folder)
        self._enter(folder)
        try:
            os.chown(folder, self.uid, self.gid)
            folder.chmod(0o700)
        except OSError as error:
            raise _unusable(folder, error) from error
        return folder

    def _enter(self, folder: pathlib.Path) -> None:
        """Raise ConfigurationError if the servers' user cannot reach the folder."""
        if self.uid == os.geteuid():
            return
        for parent in folder.parents:
            if not self._may_pass(parent):
                raise ConfigurationError(
                    f"{folder} lies below {parent}, which user {pwd.getpwuid(self.uid).pw_name} cannot enter, and the embedded "
                    f"servers do not run as root: `chmod o+x {parent}`, or set GUARDFLEET_DATA_DIR to a folder elsewhere."
                )

    def _may_pass(self, folder: pathlib.Path) -> bool:
        found = folder.stat()
        bit = stat.S_IXUSR if found.st_uid == self.uid else stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH
        return bool(found.st_mode & bit)

    def reachable(self, binaries: pathlib.Path, copy_to: pathlib.Path) -> pathlib.Path:
        """Return the folder of binaries, or a copy that the owner can read: an install under root's home is closed to others."""
        if self.uid == os.geteuid() or all(_is_open(parent) for parent in (binaries, *binaries.resolve().parents)):
            return binaries
        if not copy_to.exists():
            part = copy_to.with_name(copy_to.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(binaries, part, symlinks=True)
            part.rename(copy_to)
        return copy_to


def make_folder(folder: pathlib.Path) -> None:
    """Make a folder for guardfleet's data, with its parents. Raises ConfigurationError."""
    if not folder.is_absolute():
        raise ConfigurationError("there is no home folder (HOME is not set): set GUARDFLEET_DATA_DIR to a folder you own.")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise _unusable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unusable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _unusable(folder: pathlib.Path, error: OSError) -> ConfigurationError:
    why = "there is a file of this name" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return ConfigurationError(f"cannot make the data folder {folder} ({why}): set GUARDFLEET_DATA_DIR to a folder you own.")


def _is_open(folder: pathlib.Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)

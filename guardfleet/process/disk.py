"""The room that is left where a folder is, or will be made."""

import pathlib
import shutil


def nearest(folder: pathlib.Path) -> pathlib.Path:
    """Return the folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_bytes(folder: pathlib.Path) -> int:
    """Return what is free at the folder, or at its nearest parent that exists. Raises OSError."""
    return shutil.disk_usage(nearest(folder)).free

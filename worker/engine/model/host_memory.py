"""How much memory this machine can give: the kernel's estimate, or what a container's limit leaves, if that is less."""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path("/")


class _Files(NamedTuple):
    """File names of a control group, and the name of its cached file memory, which is reclaimed first."""

    limit: str
    used: str
    idle: str


V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = _Files("memory.max", "memory.current", "inactive_file")


def available_bytes(root: pathlib.Path = ROOT) -> int | None:
    """Return the bytes available without swapping; None where it is not Linux that tells."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return max(0, min(free, *_left_by_groups(root), free))


def _left_by_groups(root: pathlib.Path) -> Iterator[int]:
    """Yield what each control group of this process, and each around it, leaves: any of their limits binds."""
    for mount, path, files in _groups(root):
        inner = mount / path
        for group in (inner, *inner.parents):
            if group.is_relative_to(mount) and (left := _left(group, files)) is not None:
                yield left


def _groups(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str, _Files]]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, controllers, path in (line.split(":", 2) for line in lines):
        if number == "0" and not controllers:
            yield root / "sys/fs/cgroup", path.lstrip("/"), V2
        elif "memory" in controllers.split(","):
            yield root / "sys/fs/cgroup/memory", path.lstrip("/"), V1


def _left(group: pathlib.Path, files: _Files) -> int | None:
    try:
        limit = (group / files.limit).read_text().strip()
        if limit == "max":
            return None
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - int((group / files.used).read_text()) + int(stat.get(files.idle, 0))
    except (OSError, ValueError):
        return None

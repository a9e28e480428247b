"""The memory that this process may use and has used: its control group's, or the machine's."""

import pathlib

GROUP = pathlib.Path("/sys/fs/cgroup")
MACHINE = pathlib.Path("/proc/meminfo")
FULL = 0.9


def wrong() -> str | None:
    """Return that more than nine tenths are in use, or None. What the system could free at once, as its file cache, is free."""
    used, total = in_use()
    return in_words(used, total, "memory")


def in_words(used: int, total: int, what: str) -> str | None:
    """Return that `what` is nearly full, or None."""
    if total and used > FULL * total:
        return f"{used / total:.0%} of {total / 2**30:.1f} GiB of {what} are in use"
    return None


def in_use() -> tuple[int, int]:
    """Return bytes in use and in all; zeros where the system does not say."""
    try:
        limit = (GROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((GROUP / "memory.current").read_text())
            cache = next(
                int(line.split()[1])
                for line in (GROUP / "memory.stat").read_text().splitlines()
                if line.startswith("inactive_file ")
            )
            return used - cache, int(limit)
    except (OSError, ValueError, StopIteration):
        pass  # no control group of the second version: the machine's figures
    try:
        known = {
            name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in MACHINE.read_text().splitlines())
        }
        return known["MemTotal"] - known["MemAvailable"], known["MemTotal"]
    except (OSError, KeyError, ValueError):
        return 0, 0

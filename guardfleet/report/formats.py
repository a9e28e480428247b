"""Values as people read them."""

NONE = "\u2013"  # what stands where there is no value


def number(value: float) -> str:
    """Format a count or a figure: `1,234,567`, `0.25`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004


def percent(share: float) -> str:
    """Format a share of one: `12.3 %`."""
    return f"{100 * share:.1f} %"


def span(seconds: float | None) -> str:
    """Format a duration: `3.2 s`, `4 min`, `2.5 h`, `3 d`."""
    if seconds is None:
        return NONE
    for least, unit, per in ((172_800, "d", 86_400), (5400, "h", 3600), (90, "min", 60)):
        if seconds >= least:
            return f"{seconds / per:.3g} {unit}"
    return f"{seconds:.3g} s"


def size(n: float) -> str:
    """Format bytes: `3.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:  # noqa: PLR2004
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"

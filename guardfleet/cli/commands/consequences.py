"""What labels say of an old and a new policy, as `guardfleet policy test` prints it."""

from typing import Any

from rich.table import Table

from guardfleet.cli import terminal

GROUPS = {"unsafe": "unsafe", "unsafe_or_controversial": "unsafe or controversial", "benign": "safe"}


def show(found: dict[str, Any] | None) -> None:
    """Print the shares of harmful and benign texts by action, old and new; nothing without labels, and no action that none gets."""
    if found is None:
        return
    table = Table(title=f"By {found['labels']:,} labels: estimated share of texts, with 95 % intervals", title_justify="left")
    for column in ("texts that are", "action", "old", "new"):
        table.add_column(column, justify="right" if column in ("old", "new") else "left")
    for group, name in GROUPS.items():
        old, new = found[group]["old"], found[group]["new"]
        for action in old:
            if any((side.get(action) or {}).get("value") for side in (old, new)):
                table.add_row(name, action, _said(old.get(action)), _said(new.get(action)))
    terminal.say(table, to=terminal.answers)


def _said(share: dict[str, float] | None) -> str:
    return "-" if share is None else f"{share['value']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"

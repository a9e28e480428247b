#!/usr/bin/env python3
"""Write the pages that are generated from the code: docs/settings.md. A test holds them against it."""

import pathlib

from guardfleet.settings import ENV_PREFIX, Settings

HERE = pathlib.Path(__file__).parent
INTRO = """# Settings

Generated from `guardfleet/settings/__init__.py` by `make docs`. Every process reads the same settings, from environment
variables. An unknown or wrong one stops the process with a sentence that names the key and what is allowed.
Secrets are not shown.

| variable | default | what it is |
|---|---|---|
"""


def settings_page() -> str:
    """The page."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if default in (None, "") or name == "data_dir" else f"`{default}`"
        rows.append(f"| `{ENV_PREFIX}{name.upper()}` | {shown} | {(field.description or '').replace('|', '&#124;')} |")
    return INTRO + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (HERE / "settings.md").write_text(settings_page())

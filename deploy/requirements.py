#!/usr/bin/env python3
"""Print what the extras of `pyproject.toml` require, one a line: images install it before the source, which changes more often.

`python requirements.py api,dispatcher`, beside the file; an extra that requires another of this project is followed.
"""

import pathlib
import re
import sys
import tomllib


def required(extras: str) -> list[str]:
    """Return the requirements of the package and of its extras. Raises KeyError for one that there is not."""
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    own = re.compile(rf"{project['name']}\[([a-z0-9,]+)\]")
    found, wanted = list(project["dependencies"]), extras.split(",")
    for extra in wanted:  # grows while it is read
        for requirement in project["optional-dependencies"][extra]:
            inner = own.fullmatch(requirement)
            if inner:
                wanted.extend(name for name in inner[1].split(",") if name not in wanted)
            else:
                found.append(requirement)
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print("\n".join(required(sys.argv[1])))  # noqa: T201

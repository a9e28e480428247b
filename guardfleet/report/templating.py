"""Templates of HTML: everything is escaped, and every character of what others wrote is made visible."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from guardfleet.report.formats import number, percent, size, span
from guardfleet.report.visible import visible


def environment(package: str) -> Environment:
    """Return the environment of a package's templates. A template that names what is not there is a defect, and an error."""
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    made.filters.update(number=number, percent=percent, span=span, size=size)
    return made

"""Placeholder."""

from starlette.responses import Response

from api.console.asking import Ask
from api.console.routing import page


async def first(ask: Ask) -> Response:
    """Show the area."""
    return ask.render("placeholder.html", title="verdicts")


routes = [page("/verdicts", first, scope="batches:read")]

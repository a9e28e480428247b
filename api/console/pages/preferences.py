"""What a person prefers: language and theme. Areas add their own, under names that begin with theirs."""

from starlette.responses import Response

from api.console import language
from api.console.asking import THEMES, Ask
from api.console.navigation import HOME
from api.console.routing import action, local, page
from guardfleet.store import sessions


async def show(ask: Ask) -> Response:
    """Show what the person prefers."""
    return ask.render("preferences.html", themes=THEMES)


async def save(ask: Ask) -> Response:
    """Store it."""
    wanted = {
        "language": ask.form["language"] if ask.form.get("language") in language.LANGUAGES else None,
        "theme": ask.form["theme"] if ask.form.get("theme") in THEMES else None,
    }
    await ask.of(sessions.prefer, ask.db, ask.session, {name: value for name, value in wanted.items() if value})
    ask.access.forget(ask.access.token_of(ask.request) or "")
    return ask.back(local(ask.form.get("next", f"{HOME}preferences")), done="saved")


routes = [page("/preferences", show), action("/preferences", save)]

"""Check query parameters: an unknown or repeated one is refused, so that no answer is wider than was asked for."""

from collections import Counter

from fastapi import Request

from api.http.problems import ProblemError


def require_known(request: Request) -> None:
    """Raise ProblemError for a parameter that the route does not have, or does not accept repeatedly."""
    if not request.url.query:
        return
    known = _known(request)
    for name, n in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise ProblemError(400, "unknown_parameter", f"this URL has no such parameter: {has}.", param=name)
        if n > 1 and not known[name]:
            raise ProblemError(400, "repeated_parameter", "the parameter occurs more than once in the URL.", param=name)


def _known(request: Request) -> dict[str, bool]:
    """Return the route's parameters, and whether each may be repeated."""
    path = request.app.openapi()["paths"][request.scope["route"].path_format]
    found = path[request.method.lower()].get("parameters", [])
    return {each["name"]: "'array'" in str(each["schema"]) for each in found if each["in"] == "query"}

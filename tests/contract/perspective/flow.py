"""What one client of Perspective does, as its users write it; prints what came of it as one JSON.

    python flow.py CLIENT        with BASE, KEY and TEXT in the environment

The clients have Perspective's address in their code. It is replaced where bytes leave the process: nothing else of them is changed.
"""

import asyncio
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

BASE, KEY, TEXT = (os.environ.get(name, "") for name in ("BASE", "KEY", "TEXT"))
THEIRS = "https://commentanalyzer.googleapis.com"
WRONG = "gf_wrong"


def redirected(url: object) -> Any:
    return str(url).replace(THEIRS, BASE, 1)


def google_api_python_client() -> dict[str, Any]:
    import httplib2
    from googleapiclient import discovery
    from googleapiclient.errors import HttpError

    found: dict[str, Any] = {}
    for name, place in (("short", "$discovery/rest?version=v1alpha1"), ("long", "discovery/v1/apis/{api}/{apiVersion}/rest")):
        client = discovery.build(
            "commentanalyzer", "v1alpha1", developerKey=KEY, discoveryServiceUrl=f"{BASE}/{place}", static_discovery=False
        )
        body = {"comment": {"text": TEXT}, "requestedAttributes": {"TOXICITY": {}, "PROFANITY": {}}, "doNotStore": True}
        found[name] = values(client.comments().analyze(body=body).execute())
    body = {"comment": {"text": TEXT}, "attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.1}}}, "clientToken": "t"}
    found["token"] = client.comments().suggestscore(body=body).execute()["clientToken"]
    try:
        client.comments().analyze(body={"comment": {"text": TEXT}, "requestedAttributes": {"NONE": {}}}).execute()
    except HttpError as error:
        found["refused"] = [error.status_code, error.error_details[0]["reason"]]
    assert httplib2
    return found


def perspective_py() -> dict[str, Any]:
    import httplib2

    for name in ("matplotlib", "matplotlib.pyplot"):  # it draws with it; no chart is drawn here
        sys.modules[name] = types.ModuleType(name)
    sys.modules["matplotlib"].set_loglevel = lambda _: None  # type: ignore[attr-defined]
    ask = httplib2.Http.request
    httplib2.Http.request = lambda self, uri, *rest, **more: ask(self, redirected(uri), *rest, **more)
    from googleapiclient import http
    from perspective import Client
    from perspective.errors import HTTPException, InvalidToken

    assert http
    score = Client(KEY).analyze(TEXT, ["TOXICITY", "THREAT"])
    try:
        Client(WRONG)
    except (HTTPException, InvalidToken) as error:
        return {"scores": {name: value / 100 for name, value in score.items()}, "wrong_key": type(error).__name__}
    return {}


def perspective() -> dict[str, Any]:
    from perspective import api_client
    from perspective import perspective as client

    ask = api_client.Request
    api_client.Request = lambda url, **more: ask(redirected(url), **more)
    api = client.PerspectiveAPI(KEY)
    whole = api.analyze_comment(
        TEXT, requested_attributes={"TOXICITY": {}}, languages=["en"], do_not_store=True, client_token="t",
        session_id="s", community_id="c", span_annotations=True, comment_type="PLAIN_TEXT",
        context=[{"text": "before", "type": "PLAIN_TEXT"}],
    )  # fmt: skip
    suggested = api.suggest_score(TEXT, {"TOXICITY": {"summaryScore": {"value": 0.2}}}, client_token="t")
    return {"scores": api.score(TEXT, ["TOXICITY", "INSULT"]), "whole": values(whole), "token": suggested["clientToken"]}


def pyperspective() -> dict[str, Any]:
    requests_redirected()
    from PyPerspective import errors
    from PyPerspective.Perspective import Perspective

    comment = Perspective(KEY).get_score(TEXT, tests=["TOXICITY", "THREAT"])
    found = {"scores": {each.name: each.score for each in comment.attributes}, "languages": comment.detected_langs}
    try:
        Perspective(WRONG)
    except errors.InvalidAuthKey:
        found["wrong_key"] = "InvalidAuthKey"
    return found


def pyspective() -> dict[str, Any]:
    requests_redirected()
    from pyspective.pyspective import PyspectiveAPI

    client = PyspectiveAPI(KEY)
    return {"scores": client.score(TEXT), "suggested": client.suggest(TEXT, 0.3)}


def perspectiveapi() -> dict[str, Any]:
    import httpx

    for kind in (httpx.Client, httpx.AsyncClient):
        build = kind.build_request
        kind.build_request = lambda self, method, url, _build=build, **more: _build(self, method, redirected(url), **more)
    import perspective.blocking
    from perspective import Attribute
    from perspective.models import Perspective

    asked = [Attribute.TOXICITY, Attribute.FLIRTATION]
    one, other = perspective.blocking.Perspective(KEY).score(TEXT, asked), asyncio.run(Perspective(KEY).score(TEXT, asked))
    return {"scores": {"TOXICITY": one.toxicity}, "flirtation": one.flirtation, "async": other.toxicity == one.toxicity}


def requests_redirected() -> None:
    import requests

    ask = requests.Session.request
    requests.Session.request = lambda self, method, url, **more: ask(self, method, redirected(url), **more)


def values(answer: dict[str, Any]) -> dict[str, float]:
    return {name: score["summaryScore"]["value"] for name, score in answer["attributeScores"].items()}


CLIENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "google-api-python-client": google_api_python_client,
    "perspective.py": perspective_py,
    "perspective": perspective,
    "PyPerspective": pyperspective,
    "PySpective": pyspective,
    "perspectiveapi": perspectiveapi,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(CLIENTS[sys.argv[1]]()))

"""The description of Perspective's API that Google's client libraries are built from at run time (discovery document, version v1).

Only what this server answers is in it. Its root is where it was asked for, so that calls go to the same server.
"""

from typing import Any

API, VERSION = "commentanalyzer", "v1alpha1"
TITLE = "Perspective's comment analyzer, answered by guardfleet"
STRING, BOOLEAN, NUMBER, INTEGER = (
    {"type": "string"},
    {"type": "boolean"},
    {"type": "number", "format": "float"},
    {"type": "integer"},
)


def document(root: str) -> dict[str, Any]:
    """Return the document for a server at this address, which ends with a slash."""
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": f"{API}:{VERSION}",
        "name": API,
        "canonicalName": "Comment Analyzer",
        "version": VERSION,
        "title": TITLE,
        "description": "Scores of texts for Perspective's attributes, from the verdicts of this server's own models.",
        "protocol": "rest",
        "rootUrl": root,
        "mtlsRootUrl": root,
        "servicePath": "",
        "basePath": "",
        "baseUrl": root,
        "batchPath": "batch",
        "parameters": {
            "key": {**STRING, "location": "query", "description": "Your API key."},
            "alt": {**STRING, "location": "query", "enum": ["json"], "enumDescriptions": ["JSON"], "default": "json"},
            "prettyPrint": {**BOOLEAN, "location": "query", "default": "true"},
        },
        "resources": {
            "comments": {
                "methods": {
                    "analyze": _method("analyze", "AnalyzeComment", "Score a comment for the requested attributes."),
                    "suggestscore": _method("suggestscore", "SuggestCommentScore", "Say what the scores of a comment should be."),
                }
            }
        },
        "schemas": {schema["id"]: schema for schema in SCHEMAS},
    }


def _method(name: str, messages: str, does: str) -> dict[str, Any]:
    path = f"{VERSION}/comments:{name}"
    return {
        "id": f"{API}.comments.{name}",
        "path": path,
        "flatPath": path,
        "httpMethod": "POST",
        "description": does,
        "parameters": {},
        "parameterOrder": [],
        "request": {"$ref": f"{messages}Request"},
        "response": {"$ref": f"{messages}Response"},
    }


def _object(name: str, **properties: Any) -> dict[str, Any]:
    return {"id": name, "type": "object", "properties": properties}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": name}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


ABOUT = {"clientToken": STRING, "languages": _list(STRING)}
CALLER = {"sessionId": STRING, "communityId": STRING, "context": _ref("Context")}
SCHEMAS = (
    _object("TextEntry", text=STRING, type=STRING),
    _object("Context", entries=_list(_ref("TextEntry"))),
    _object("AttributeParameters", scoreType=STRING, scoreThreshold=NUMBER),
    _object("Score", value=NUMBER, type=STRING),
    _object("SpanScore", begin={**INTEGER, "format": "int32"}, end={**INTEGER, "format": "int32"}, score=_ref("Score")),
    _object("AttributeScores", summaryScore=_ref("Score"), spanScores=_list(_ref("SpanScore"))),
    _object(
        "AnalyzeCommentRequest",
        comment=_ref("TextEntry"),
        requestedAttributes=_map(_ref("AttributeParameters")),
        doNotStore=BOOLEAN,
        spanAnnotations=BOOLEAN,
        dropUnsupportedAttributes=BOOLEAN,
        **ABOUT,
        **CALLER,
    ),
    _object(
        "AnalyzeCommentResponse",
        attributeScores=_map(_ref("AttributeScores")),
        detectedLanguages=_list(STRING),
        unsupportedAttributes=_list(STRING),
        **ABOUT,
    ),
    _object(
        "SuggestCommentScoreRequest",
        comment=_ref("TextEntry"),
        attributeScores=_map(_ref("AttributeScores")),
        **ABOUT,
        **CALLER,
    ),
    _object(
        "SuggestCommentScoreResponse",
        clientToken=STRING,
        detectedLanguages=_list(STRING),
        requestedLanguages=_list(STRING),
        unsupportedAttributes=_list(STRING),
    ),
)

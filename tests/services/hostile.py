"""Requests that no sane client sends, made from the OpenAPI: every parameter, field, body and content type is spoilt in turn.

They cover what has broken servers: NUL, half a surrogate pair, depth, integers of 5,000 digits, NaN, huge exponents, repeated keys,
wrong types and wrong content types. None may get a 5xx.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.testclient import TestClient

MARK = "@@here@@"
RAW: Mapping[str, bytes] = {  # valid and invalid JSON
    "nul": rb'"\u0000"',
    "nul inside": rb'"a\u0000b"',
    "half a pair": rb'"\ud800"',
    "pair the wrong way": rb'"\udc00\ud800"',
    "raw surrogate": b'"\xed\xa0\x80"',
    "not utf-8": b'"\xff\xfe"',
    "control": rb'"\u0001\u001f"',
    "5,000 digits": b"9" * 5000,
    "minus 5,000 digits": b"-" + b"9" * 5000,
    "long fraction": b"0." + b"3" * 5000,
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "exponent": b"1e400",
    "small exponent": b"1e-400",
    "2**63": b"9223372036854775808",
    "empty": b'""',
    "null": b"null",
    "boolean": b"true",
    "object": b"{}",
    "list": b"[[]]",
    "long": b'"' + b"x" * 70_000 + b'"',
    "repeated keys": b'{"a": 1, "a": 2, "\\u0061": 3}',
    **{f"{depth} deep": b"[" * depth + b"]" * depth for depth in (65, 200, 900, 960, 980, 986, 990, 1100, 20_000)},
    **{f"{depth} objects deep": b'{"a":' * depth + b"1" + b"}" * depth for depth in (65, 960, 985, 987, 1100)},
}
IN_URL = (
    "%00", "a%00b", "%ED%A0%80", "%FF%FE", "%", "%F0%9F%98%80", "..%2F..", "x" * 3000, "9" * 5000, "NaN", "-inf", "1e400",
    "", "null", "%22%00%22", "%7B%22a%22%3A%22%5Cu0000%22%7D", "%7B%22%5Cud800%22%3A%22a%22%7D", "[" * 2000, "true",
)  # fmt: skip
FORM = "multipart/form-data; boundary=e"
KINDS = (None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", FORM[:19], "*/*", "\xff")
BODIES = (
    b"", b"\0", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"{", b'{"a":', b"[" * 100_000, b"null", b"[]", b'"x"', b"NaN", b"{}{}",
)  # fmt: skip
HEADERS = {
    "idempotency-key": ("", "x" * 256, "\xff", "a b"),
    "guardfleet-callback-secret": ("", "\xff", "whsec_", "whsec_" + "A" * 5000),
    "prefer": ("wait", "wait=", "wait=" + "9" * 50, "wait=-1", "\xff", "wait=\xb2"),
    "range": ("bytes=", "bytes=-", "bytes=9-1", "bytes=" + "9" * 40 + "-", "\xff"),
    "content-encoding": ("gzip", "zstd", "br", "gzip, gzip", "\xff", ""),
    "x-stainless-retry-count": ("\xff", "-1", "9" * 50),
    "authorization": ("", "Bearer", "Bearer \xff", "Basic x", "Bearer " + "x" * 5000),
}


@dataclass(frozen=True)
class Spoilt:
    """One request, and what is wrong with it."""

    what: str
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


def requests_of(described: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[Spoilt]:
    """All spoilt requests; `known` has a valid value for each path parameter."""
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            yield from _of_operation(described, path, method.upper(), operation, known)


def wrong_with(client: TestClient, request: Spoilt) -> str | None:
    """What is wrong with the answer, or None."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        answer = client.request(request.method, request.url, headers=headers, content=request.body)
    except (UnicodeError, RecursionError) as error:
        return f"{request.what}: {request.method} {request.url[:80]}: raised {type(error).__name__}"
    code = _code(answer) if answer.status_code >= 400 else None
    if answer.status_code < 500 and (answer.status_code < 400 or code):
        return None
    if code == "deadline_exceeded":  # no worker runs here
        return None
    return f"{request.what}: {request.method} {request.url[:80]}: {answer.status_code} {code}"


def _code(answer: Any) -> str | None:
    """Return the code of an error, ours or Google's; None for what is neither."""
    said = answer.headers.get("content-type", "")
    if said == "application/problem+json":
        return code_in(answer.json())
    if said.startswith("application/json") and str(answer.request.url.path).startswith("/v1alpha1/"):
        return code_in(answer.json()) if answer.json()["error"]["code"] == answer.status_code else None
    return None


def code_in(body: Mapping[str, Any]) -> str:
    """Return the code of an error, ours or Google's."""
    error = body["error"]
    return str(error["details"][0]["reason"]).lower() if "details" in error else str(error["code"])


def _of_operation(
    described: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any], known: Mapping[str, str]
) -> Iterator[Spoilt]:
    named = {name: quote(value) for name, value in known.items()}
    url = path.format(**named)
    content = operation.get("requestBody", {}).get("content", {})
    kind = next(iter(content), None)
    good = _sample(described, content[kind]["schema"]) if kind == "application/json" else None
    body = None if kind is None else json.dumps(good).encode()
    said = {} if kind is None else {"content-type": kind}
    for each in operation.get("parameters", []):
        name, is_in_path = each["name"], each["in"] == "path"
        for value in IN_URL:
            spoilt = path.format(**{**named, name: value or "%20"}) if is_in_path else f"{url}?{name}={value}"
            yield Spoilt(f"{name}={value[:20]}", method, spoilt, said, body)
    for name, values in HEADERS.items():
        for value in values:
            yield Spoilt(f"{name}: {value[:20]}", method, url, {**said, name: value}, body)
    for other in KINDS if content else ():
        yield Spoilt(f"content-type {other}", method, url, {} if other is None else {"content-type": other}, body)
    for raw in BODIES if content else ():
        yield Spoilt(f"body {raw[:20]!r}", method, url, said, raw)
    if kind == "application/json":
        yield from _json_bodies(method, url, said, good)
    yield from _lines(method, url) if "application/jsonl" in content else ()
    yield from _forms(method, url) if FORM[:19] in content else ()


def _json_bodies(method: str, url: str, said: dict[str, str], good: object) -> Iterator[Spoilt]:
    for place, marked in _marked(good):
        template = json.dumps(marked).encode()
        for name, raw in RAW.items():
            yield Spoilt(f"{place} {name}", method, url, said, template.replace(b'"%b"' % MARK.encode(), raw))


def _marked(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The value with a mark in each place in turn: instead of each value, and as a further key of each object."""
    yield place or "all", MARK
    if isinstance(value, dict):
        for key, inner in value.items():
            for deeper, marked in _marked(inner, f"{place}.{key}"):
                yield deeper, {**value, key: marked}
        yield f"{place}.key", {**value, MARK: next(iter(value.values()), 1)}
    elif isinstance(value, list) and value:
        for deeper, marked in _marked(value[0], f"{place}.0"):
            yield deeper, [marked, *value[1:]]


def _lines(method: str, url: str) -> Iterator[Spoilt]:
    rows: tuple[dict[str, Any], ...] = (
        {"id": "a", "text": "x", "metadata": {"a": ["b"]}},
        {"id": "a", "messages": [{"role": "user", "content": "x"}]},
        {"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": "x"}},
    )
    for row in rows:
        for place, marked in _marked(row):
            for name, raw in RAW.items():
                line = json.dumps(marked).encode().replace(b'"%b"' % MARK.encode(), raw) + b'\n{"id": "z", "text": "y"}'
                yield Spoilt(f"line {place} {name}", method, url, {"content-type": "application/jsonl"}, line)


def _forms(method: str, url: str) -> Iterator[Spoilt]:
    def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
        return b'--e\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, more, value)

    row = b'{"id": "a", "text": "x"}'
    for bad in (b"", b"\0", b"\xff", b"\xed\xa0\x80", b"x" * 5000, b"9" * 30, b'"', b"\xc2\xb2"):
        spoilt = {
            "purpose": part(b"purpose", bad) + part(b"file", row),
            "field": part(bad[:100], b"x") + part(b"purpose", b"batch") + part(b"file", row),
            "expiry": part(b"purpose", b"batch") + part(b"expires_after[seconds]", bad) + part(b"file", row),
            "filename": part(b"purpose", b"batch") + part(b"file", row, b'; filename="%b"' % bad[:100]),
            "contents": part(b"purpose", b"batch") + part(b"file", bad),
        }
        for name, form in spoilt.items():
            yield Spoilt(
                f"form {name} {bad[:9]!r}", method, url, {"content-type": "multipart/form-data; boundary=e"}, form + b"--e--\r\n"
            )


def _sample(described: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """A value of a schema, with all of its properties."""
    if "$ref" in schema:
        return _sample(described, described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return _sample(described, schema[several][0])
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        found = {name: _sample(described, inner) for name, inner in schema.get("properties", {}).items()}
        names, more = schema.get("propertyNames", {}).get("enum"), schema.get("additionalProperties")
        return found or ({names[0] if names else "k": _sample(described, more)} if isinstance(more, dict) else {})
    if kind == "array":
        return [_sample(described, schema.get("items", {}))]
    return {"string": "x", "integer": 1, "number": 1, "boolean": False}.get(kind or "")

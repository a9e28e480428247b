"""What other packages say in whole sentences, values and all, is found again by its shape and said in each language."""

import ast
import itertools
import pathlib
import re
from collections.abc import Iterator

import pytest

from api.console.language import LANGUAGES, LONGEST, made, teller, translator
from guardfleet.jobs.diagnosis import STALLED
from guardfleet.jobs.retry import GONE
from guardfleet.rows.json_text import JsonError, parse
from guardfleet.store.labels.queues import TAKEN

ROOT = pathlib.Path(__file__).parents[2]
SAYING = [  # modules whose sentences about an input, or about what stands still, come to a page of the console
    *sorted((ROOT / "guardfleet/rows").glob("*.py")),
    *(ROOT / "producer" / name for name in ("detection.py", "naming.py", "readers.py")),
    *(ROOT / "producer/formats" / name for name in ("delimited.py", "header.py", "json_lines.py", "json_values.py")),
    *sorted((ROOT / "producer/text").glob("*.py")),
    ROOT / "api/services/file_reading.py",
    ROOT / "guardfleet/jobs/diagnosis.py",
    ROOT / "guardfleet/jobs/reviewing.py",
    ROOT / "guardfleet/domain/reviews.py",
]
UNSAID = {  # what looks like a sentence, and is none that a page shows
    " ", ", ", " at", "field larger", "unexpected end", "expected after", "Unterminated string",  # looked for in others' messages
    "[tool call]", "[tool call] □", "[tool result]\n□", "[tool result of □]\n□",  # parts of a judged text
    "erased on request", "standard input", "standard input is closed.", "a column without a name is left out",
    "delimiter □", "the list □", "the id from □", "the text from □", "rows are numbered because they have no id", "□□ as metadata",
    "zstd needs backports.zstd: pip install 'guardfleet[producer]'.",
    "□ is □.", "□ □", " and ", " and □ more", "is □", "is not an object but □", "metadata □: it is left out",  # parts of others
    ": byte □ of it is 0x□", "□ held by a worker that has not been heard of lately: others can take over in □ s.", "a shard is",
    "□ shards are",
}  # fmt: skip
PROBE = "□"
MALFORMED = [
    b"",
    b"[",
    b"[1",
    b"[1 2]",
    b'{"a"',
    b'{"a" 1}',
    b"{a}",
    b'"',
    b'"\x01"',
    b'"\\x"',
    b'"\\u12"',
    b"1 2",
    b"[" * 100,
    b"\xff",
]
OTHERS = sorted(set(LANGUAGES) - {"en"})


def docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(
            node.body[0], ast.Expr
        ):
            yield node.body[0].value


def rendered(node: ast.expr) -> list[str]:
    """What an expression can say; a probe stands for each value that is filled in."""
    match node:
        case ast.Constant():
            return [str(node.value)]
        case ast.IfExp():
            return rendered(node.body) + rendered(node.orelse)
        case ast.FormattedValue(value=ast.IfExp() | ast.JoinedStr()):
            return rendered(node.value)
        case ast.JoinedStr():
            return ["".join(parts) for parts in itertools.product(*map(rendered, node.values))]
    return [PROBE]


def said_in(file: pathlib.Path, filled: str | None = PROBE) -> set[str]:
    tree = ast.parse(file.read_text())
    skipped = {id(one) for one in docstrings(tree)}
    skipped |= {
        id(part) for whole in ast.walk(tree) if isinstance(whole, ast.JoinedStr) for part in ast.walk(whole) if part is not whole
    }
    texts = [node for node in ast.walk(tree) if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant)]
    found = {said for node in texts if not isinstance(node, ast.Constant) or isinstance(node.value, str) for said in rendered(node)}
    return {said if filled is None else re.sub(r"\{\w+\}", filled, said) for said in found if " " in said}


def english_in(said: str) -> set[str]:
    return set(re.findall(r"\b[a-z]{2,}\b", said))


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("file", SAYING, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_refusal_and_reason_is_said_in_the_language(file: pathlib.Path, language: str) -> None:
    told = teller(language)
    kept = english_in(" ".join(made(language).values()))  # names of members, options and commands
    for sentence in sorted(said_in(file) - UNSAID):
        said = told(sentence)
        assert said != sentence, sentence
        assert said.count(PROBE) == sentence.count(PROBE), (sentence, said)
        assert english_in(said) <= kept, (sentence, said)


@pytest.mark.parametrize("language", OTHERS)
def test_what_is_known_of_the_fleet_is_said_in_the_language(language: str) -> None:
    say = translator(language)
    known = said_in(ROOT / "guardfleet/jobs/fleet_diagnosis.py", None) - {STALLED}
    assert len(known) > 10
    assert sorted(one for one in known if say(one) == one) == []


def test_what_is_left_out_is_there() -> None:
    assert {said for file in SAYING for said in said_in(file)} >= UNSAID


@pytest.mark.parametrize("raw", MALFORMED, ids=range(len(MALFORMED)))
def test_what_a_parser_of_json_says_is_translated_too(raw: bytes) -> None:
    with pytest.raises(JsonError) as wrong:
        parse(raw)
    assert not english_in(teller("zh")(str(wrong.value))), wrong.value


def test_a_value_within_a_sentence_is_translated_where_it_is_one_of_ours() -> None:
    told = teller("zh")
    assert not english_in(told("a row must be an object, this is a list"))
    assert "第 3 条消息" in told("message 3 has no role")
    assert told("the member 'text' occurs more than once").count("'text'") == 1


def test_anything_else_is_said_as_it_is() -> None:
    for sentence in ("", "{", "{n}", "x" * (LONGEST + 1), "no such sentence"):
        assert teller("zh")(sentence) == sentence
        assert teller("en")(sentence) == sentence
    assert teller("en")("the text is null") == "the text is null"


def test_sentences_that_are_made_elsewhere_or_of_two_parts_are_said_in_the_language() -> None:
    one = "a shard is held by a worker that has not been heard of lately: others can take over in 9 s."
    for sentence in (GONE, TAKEN, one, one.replace("a shard is", "1,200 shards are")):
        assert not english_in(teller("zh")(sentence)), sentence

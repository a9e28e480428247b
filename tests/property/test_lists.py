"""Lists over real text in many languages: every disguise of a term is found where it stands, and nothing where none stands."""

import functools
import json
import pathlib
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfleet.lists.alphabet import LEET, alphabet, letters, readings
from guardfleet.lists.document import Entry
from guardfleet.lists.matching import Matcher
from guardfleet.lists.terms import words_of

LANGUAGES = ("en", "de", "it", "pl", "nl", "fr", "es", "pt", "zh", "ar")
A_LANGUAGE = 20
WORDS = {"zh": re.compile("[\u4e00-\u9fff]{2,4}")}
ANY_WORD = re.compile(r"[^\W\d_]{4,12}")
BENIGN = 20_000
SHARD = 1000


def rows_of(shared: pathlib.Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (shared / "data" / "corpus.jsonl").read_text(encoding="utf-8").split("\n") if line]


def terms_of(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Words of the corpus, as many of each language, that are neither rare nor frequent."""
    rng, out = random.Random(21), dict[str, None]()
    for language in LANGUAGES:
        pattern = WORDS.get(language, ANY_WORD)
        counts = Counter(word for row in rows if row["lang"] == language for word in pattern.findall(str(row["text"])))
        some = sorted(word for word, n in counts.items() if 2 <= n <= 60 and word.lower() not in out)
        out |= dict.fromkeys(word.lower() for word in rng.sample(some, A_LANGUAGE))
    return list(out)


@functools.cache
def traditional() -> dict[str, str]:
    import opencc

    simple = [chr(code) for code in range(0x4E00, 0xA000)]
    return dict(zip(simple, opencc.OpenCC("s2t").convert("\n".join(simple)).split("\n"), strict=True))


@functools.cache
def lookalikes() -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for code in range(0x80, 0x600):
        for letter in readings(chr(code)):
            if letters(chr(code)) not in ("", letter):
                out.setdefault(letter, []).append(chr(code))
    return out


def leet(word: str, rng: random.Random) -> str:
    """The word with one letter as a digit or a sign; one that is left to be read has to remain."""
    places = [(i, sign) for i, letter in enumerate(word) for sign, stands in LEET.items() if letter in stands]
    if not places:
        return word
    at, sign = rng.choice(places)
    return f"{word[:at]}{sign}{word[at + 1 :]}"


def disguised(word: str, rng: random.Random) -> str:
    places = [(i, letter) for i, letter in enumerate(word) if letter in lookalikes()]
    if not places or not word.isascii():
        return word
    at, letter = rng.choice(places)
    return f"{word[:at]}{rng.choice(lookalikes()[letter])}{word[at + 1 :]}"


def repeated(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[:at] + word[at] * rng.randint(3, 6) + word[at + 1 :]


DISGUISES: Mapping[str, Callable[[str, random.Random], str]] = {
    "as it is": lambda word, _: word,
    "case": lambda word, rng: "".join(rng.choice([letter.upper(), letter]) for letter in word),
    "capitals": lambda word, _: word.upper(),
    "invisible": lambda word, rng: rng.choice("\u200b\u200d\u00ad\ufeff\u2060").join(word),
    "marks": lambda word, rng: "".join(letter + rng.choice(["", "\u0301", "\u0336\u0308"]) for letter in word),
    "full width": lambda word, _: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in word),
    "mathematical": lambda word, _: "".join(chr(ord(c) + 0x1D41A - 97) if "a" <= c <= "z" else c for c in word),
    "decomposed": lambda word, _: unicodedata.normalize("NFD", word),
    "lookalike": disguised,
    "repeated": repeated,
    "leet": leet,
    "traditional": lambda word, _: "".join(traditional().get(c, c) for c in word),
    "several": lambda word, rng: repeated(leet(word, rng), rng).upper(),
}


@pytest.mark.shared
def test_each_disguise_of_200_terms_in_ten_languages_is_found_where_it_stands(shared: pathlib.Path) -> None:
    rows, rng = rows_of(shared), random.Random(22)
    terms = terms_of(rows)
    assert len(terms) == A_LANGUAGE * len(LANGUAGES)
    around = [" ".join(words_of(str(row["text"])).split()[:8]) for row in rows if row["lang"] in ("en", "de")]
    matcher, missed, n = Matcher([("terms@1", [Entry(value=term) for term in terms])]), Counter[str](), 0
    for name, disguise in DISGUISES.items():
        planted = [(term, disguise(term, rng), rng.choice(around), rng.choice(around)) for term in terms]
        texts = [f"{before} {spelled} {after}" for _, spelled, before, after in planted]
        for (term, spelled, before, _), hits in zip(planted, matcher.find(texts), strict=True):
            start = len(before) + 1
            spans = {(hit.start, hit.end) for hit in hits.all if hit.entry.value == term} if hits else set()
            n += 1
            missed[name] += not any(is_meant(span, start, spelled) for span in spans)
    assert n == len(terms) * len(DISGUISES)
    assert +missed == Counter()


def is_meant(span: tuple[int, int], start: int, spelled: str) -> bool:
    """Return whether the span is the word; what cannot be seen at its end, and repetitions of an ideograph, belong to it or not."""
    if "\u4e00" <= spelled[0] <= "\u9fff":
        return start <= span[0] < span[1] <= start + len(spelled)
    return span[0] == start and not letters_of(spelled[span[1] - start :]).strip()


def letters_of(text: str) -> str:
    return "".join(map(letters, text))


@pytest.mark.shared
def test_no_benign_row_without_a_term_has_a_hit(shared: pathlib.Path) -> None:
    rows = rows_of(shared)
    terms = terms_of(rows)
    matcher = Matcher([("terms@1", [Entry(value=term) for term in terms])])
    plain = {term: plainly(term) for term in terms}
    texts = [str(row["text"]) for row in rows if row["labels"]["unsafe"] is False][:BENIGN]  # type: ignore[index]
    assert len(texts) == BENIGN
    held = wrong = 0
    for start in range(0, BENIGN, SHARD):
        some = texts[start : start + SHARD]
        for text, hits in zip(some, matcher.find(some), strict=True):
            seen = plainly(text) if hits else ""
            for hit in hits.all if hits else ():
                is_there = plain[hit.entry.value] in seen
                held, wrong = held + is_there, wrong + (not is_there)
    assert held > 500  # the terms are words of these languages
    assert wrong == 0


@functools.cache
def to_simplified() -> Callable[[str], str]:
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def plainly(text: str) -> str:
    """Another way to the letters: case and marks gone, traditional characters simplified, and no disguise seen through."""
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", to_simplified()(text)).casefold())
    return "".join(part for part in parts if not unicodedata.combining(part))


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_hit_is_where_the_term_stands_whatever_is_around(before: str, after: str) -> None:
    text = f"{before} Kn0wn {after}"
    (hits,) = Matcher([("mine@1", [Entry(value="known"), Entry(kind="pattern", value="Kn0wn")])]).find([text])
    assert hits is not None
    assert {text[hit.start : hit.end] for hit in hits.all if hit.start == len(before) + 1} == {"Kn0wn"}
    assert len({hit.entry.kind for hit in hits.all if hit.start == len(before) + 1}) == 2


@given(st.lists(st.text(alphabet="abl1!I ié", max_size=12), max_size=6))
def test_texts_of_a_shard_are_matched_as_each_alone(texts: list[str]) -> None:
    entries = [Entry(value="ab"), Entry(value="bill", anywhere=True), Entry(value="a b"), Entry(kind="text", value="ab")]
    matcher = Matcher([("mine@1", entries)])
    assert matcher.find(texts) == [one for text in texts for one in matcher.find([text])]


def test_the_columns_say_what_the_functions_say() -> None:
    table, rng = alphabet(), random.Random(1)
    for code in rng.sample(range(0x20000), 3000):
        word = letters(chr(code)).replace("l", "i")
        assert table.plain[code] == (ord(word) if len(word) == 1 else table.SEVERAL if word else 0)

"""Lists: what a term is found as and what not, where, what is refused, and that no input costs more than its length."""

import pytest

from guardfleet.domain.verdict import Category, ServedBy, Severity
from guardfleet.errors import RejectedError
from guardfleet.lists import reading
from guardfleet.lists.document import Entry
from guardfleet.lists.matching import MOST_TOLD, Hit, Hits, Matcher
from guardfleet.lists.patterns import Patterns
from guardfleet.lists.reading import ListError, difference, read
from guardfleet.lists.terms import MOST_HITS
from guardfleet.store.policy.lists import hits_of as hits_of_evidence

TERMS = ("stop", "shift", "nazi", "god", "kill", "white bread", "图书", "сука", "가", "straße", "mall")


def found(text: str, *entries: Entry) -> list[str]:
    """What of the text is a hit."""
    (hits,) = Matcher([("mine@1", entries or [Entry(value=term) for term in TERMS])]).find([text])
    return [] if hits is None else [text[hit.start : hit.end] for hit in hits.all]


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("Stop! STOP, ｓｔｏｐ; s\u200bt\u00ado\u2060p", ["Stop", "STOP", "ｓｔｏｐ", "s\u200bt\u00ado\u2060p"]),
        ("5hift $hift sh!ft sh1ft! ѕhift ШIFT", ["5hift", "$hift", "sh!ft", "sh1ft", "ѕhift"]),
        ("naz! Nazi! n@zi NАZI", ["naz!", "Nazi", "n@zi", "NАZI"]),
        ("good god goood g\u00f3d", ["god", "goood", "g\u00f3d"]),
        ("KILL kiII kiIl k1|| kiiiill skill kil", ["KILL", "kiII", "kiIl", "k1||", "kiiiill"]),
        ("white\u2003 Bread, white-bread wh1te bréad whitebread", ["white\u2003 Bread", "white-bread", "wh1te bréad"]),
        ("一本圖書。", ["圖書"]),
        ("сука Сукa ссука сукаa", ["сука", "Сукa"]),
        ("가나 각 나가", ["가"]),
        ("STRASSE strasse Straße", ["STRASSE", "strasse", "Straße"]),
        ("MAIL mail Mall maIl", ["Mall", "maIl"]),
        ("100 5t0p", ["5t0p"]),
        (
            "k\u200b1\u200bll k\u03011\u0301ll s\u200bh\u200b!\u200bft k\ufe0f!\ufe0fll",
            ["k\u200b1\u200bll", "k\u03011\u0301ll", "s\u200bh\u200b!\u200bft", "k\ufe0f!\ufe0fll"],
        ),
        ("cyкa сукa cукa CУКA cyka", ["cyкa", "сукa", "cукa", "CУКA"]),
        ("ⓢ＄hift ＄hift sh！ft 𝟓hift", ["＄hift", "sh！ft", "𝟓hift"]),
        ("ŧøp sŧøp kiłł nađi naƶi", ["sŧøp", "kiłł", "naƶi"]),
        ("кill KИLL kиll", ["кill"]),
        ("", []),
    ],
)
def test_a_term_is_seen_through_disguises_and_no_further(text: str, hits: list[str]) -> None:
    assert found(text) == hits


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("4chan", "4сhan"), ("covid19", "соvid19"), ("covid19", "c0vid19"), ("4chan", "4ch@n"), ("catch22", "c@tch22"),
        ("h1n1 flu", "h1n1 f1u"), ("g8 badword", "g8 b@dword"), ("4chan", "４chan"), ("shift", "sh!!ft"), ("shift", "sh11ft"),
    ],
)  # fmt: skip
def test_terms_with_digits_and_doubled_signs_are_seen_through_too(term: str, text: str) -> None:
    assert found(text, Entry(value=term)) == [text]


def test_a_sign_at_the_edge_of_a_word_is_a_letter_or_none() -> None:
    term, ass = Entry(value="badword"), Entry(value="stop")
    for around in ("||{}||", "|{}|", "{}|", "+{}+", "{}+", "${}", "{}$", "@{}", "{}!", "*{}*", "{}!!!", "({})!"):
        for word in ("b@dword", "bаdword", "badword", "b4dw0rd"):
            assert found(around.format(word), term) == [word], around
    assert [found(text, ass) for text in ("$top", "||$top||", "$$top!", "st0p!")] == [["$top"], ["$top"], ["$top"], ["st0p"]]


def test_a_kana_that_goes_on_is_another_one() -> None:
    assert [found(text, Entry(value="カ")) for text in ("カ\u3099", "ｶﾞ", "ガ", "カラ")] == [[], [], [], ["カ"]]


def test_a_long_row_of_marks_costs_its_length() -> None:
    allowed = Entry(kind="text", value="hello a", decide="safe")
    text = "hello a" + "\u0301\u0323" * 200_000
    assert found(text, allowed, Entry(kind="pattern", value="zzz")) == []
    assert found(text, Entry(kind="pattern", value="hello")) == [text]
    assert found("hello a\u0301\u0323", Entry(kind="pattern", value="hello .")) == ["hello a\u0301\u0323"]


def test_an_allowed_number_is_that_number() -> None:
    for value, other in (("-5 a", "5 a"), ("1² a", "12 a"), (".5 a", "5 a")):
        allowed = Entry(kind="text", value=value, decide="safe")
        assert (found(other, allowed), found(f"{value.upper()}!", allowed)) == ([], [f"{value.upper()}!"])


def test_letters_that_greek_writes_in_two_ways_are_one() -> None:
    assert found("μαλακας μαλaκας ΜΑΛΑΚΑΣ", Entry(value="μαλακας")) == ["μαλακας", "μαλaκας", "ΜΑΛΑΚΑΣ"]


def test_many_words_that_only_look_like_a_term_cost_no_look_at_the_whole_text_each() -> None:
    assert found("асе " * 250_000 + "ж", Entry(value="ace")) == []
    assert found("асе " * 3, Entry(value="ace")) == ["асе"] * 3


def test_signs_in_a_term_are_refused_since_they_would_be_spaces() -> None:
    for term in ("a$$", "c++", "c#", "sh!t", "f**k", "@everyone", "a 🔫", "# a comment"):
        with pytest.raises(ValueError, match="separates words in a term"):
            Entry(value=term)
    assert found("rock 'n' roll, e mail", Entry(value="rock'n'roll"), Entry(value="e-mail")) == ["rock 'n' roll", "e mail"]


def test_terms_that_one_place_of_a_text_would_be_compared_with_all_of_are_refused() -> None:
    for lines in ([f"{'a' * n}" for n in range(1, 60)], [f'{{"value": "{"ab" * n}", "anywhere": true}}' for n in range(1, 60)]):
        with pytest.raises(ListError, match="more than 50 terms are spelled like it, or end like it"):
            read("\n".join(lines), "txt" if lines[0] == "a" else "jsonl")
    assert len(read("\n".join(f"{word}s" for word in map(str, range(1000))), "txt")) == 1000


def test_a_term_that_is_exact_or_anywhere() -> None:
    assert found("kill Kill k1ll kiiill ｋｉｌｌ", Entry(value="kill", exact=True)) == ["kill", "Kill", "ｋｉｌｌ"]
    assert found("skilled sk1lled", Entry(value="kill", anywhere=True)) == ["kill", "k1ll"]
    assert found("aab baab", Entry(value="ab", anywhere=True)) == ["ab", "ab"]


def test_a_word_in_another_script_is_none_that_only_looks_like_it() -> None:
    cop = Entry(value="cop")
    assert found("сор", cop) == ["сор"]  # alone it is a disguise
    assert found("уберите сор из избы", cop) == []  # in a Russian text it is a word
    assert found("the pot and the cop", Entry(value="рот")) == []


def test_a_pattern_sees_the_compatibility_form_and_its_span_is_the_texts() -> None:
    card = Entry(kind="pattern", value=r"\b\d{4}-\d{4}\b")
    text = "é e\u0301 ﬁ １２３４\u200b－5678 각\u1100\u1161"
    assert found(text, card) == ["１２３４\u200b－5678"]
    assert found("e\u0301 x", Entry(kind="pattern", value="é")) == ["e\u0301"]
    assert found("none", card) == []


def test_whole_texts_and_digests_are_the_text_and_not_in_it() -> None:
    whole = Entry(kind="text", value="Buy now, cheap!", decide="unsafe")
    assert found("buy NOW\u200b -- cheap", whole) == ["buy NOW\u200b -- cheap"]
    assert found("buy now cheap pills", whole) == []
    allowed = Entry(kind="text", value="I will kill you", decide="safe")
    assert found("i WILL kill, you!", allowed) == ["i WILL kill, you!"]
    for more in ("🆈🅾🆄", "🔫", "\U000e0068", "⠓⠊", "\u200b", "\u0336"):
        assert found(f"i will kill you {more}", allowed) == [], "what a model may judge"
    assert found("buy now cheap 🆈🅾🆄", whole) == []
    digest = Entry(kind="digest", value="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")  # of abc
    assert (found("abc", digest), found("abc ", digest)) == (["abc"], [])


def text_of(hit: Hit, text: str) -> str:
    return text[hit.start : hit.end]


def hits_of(content: object, *entries: Entry) -> Hits:
    (hits,) = Matcher([("mine@1", entries)]).find([content])  # type: ignore[list-item]
    assert hits is not None
    return hits


def test_the_gravest_hit_decides_and_of_a_conversation_the_last_turn() -> None:
    bad = Entry(value="bad", decide="unsafe", categories=("Violent",))
    odd = Entry(value="odd", decide="controversial", categories=("PII",))
    said = hits_of("odd bad odd", odd, bad).judgement()
    assert (said.severity, said.categories, said.served_by) == (Severity.UNSAFE, Category.VIOLENT, ServedBy.LIST)
    assert said.evidence is not None
    assert said.evidence["lists"][0] == {"list": "mine@1", "entry": bad.name, "start": 4, "end": 7, "decided": True}
    turns = [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "an odd one"}]
    hits = hits_of(turns, odd, bad)
    assert (hits.severity, [hit.turn for hit in hits.all]) == (Severity.CONTROVERSIAL, [0, 1])
    assert hits_of([*turns[:1], {"role": "assistant", "content": "no"}], bad).severity is None
    with pytest.raises(ValueError, match="no hit decides"):
        hits_of("bad", Entry(value="bad")).judgement()


def test_what_decides_hides_no_other_list_and_no_entry() -> None:
    mild = Entry(value="mildword", decide="controversial")
    lists = [("mild@1", [mild]), *((f"l{at}@1", [Entry(value=f"name{chr(97 + at)}x")]) for at in range(26))]
    text = "mildword " * 30 + " ".join(f"name{chr(97 + at)}x" for at in range(26)) + " name"
    (hits,) = Matcher(lists).find([text])
    assert hits is not None
    assert {hit["list"] for hit in hits.evidence()["lists"]} == {name for name, _ in lists}
    assert hits.evidence()["lists"][0]["decided"] is True
    many = [Entry(value=f"word{chr(97 + at // 26)}{chr(97 + at % 26)}x") for at in range(60)]
    (hits,) = Matcher([("many@2", many)]).find([" ".join(entry.value for entry in many)])
    assert hits is not None
    assert hits_of_evidence([hits.evidence()]) == {"many": {entry.name: 1 for entry in many}}
    assert not any("decided" in hit for hit in hits.evidence(decided=False)["lists"])


def test_evidence_is_bounded_and_holds_each_list() -> None:
    many = [Entry(value=f"word{chr(97 + i)}{chr(97 + i)}x") for i in range(26)]
    text = " ".join(entry.value for entry in many) + " rare"
    (hits,) = Matcher([("many@1", many), ("few@2", [Entry(value="rare")])]).find([text * 3])
    assert hits is not None
    told = hits.evidence()
    assert len(told["lists"]) == MOST_TOLD
    assert told["more_hits"] == len(hits.all) - MOST_TOLD
    assert {hit["list"] for hit in told["lists"]} == {"many@1", "few@2"}
    assert len({hit["entry"] for hit in told["lists"]}) == MOST_TOLD


@pytest.mark.parametrize(
    "text",
    [
        "a " * 500_000,
        "k" + "i" * 1_000_000 + "ll",
        "K" + "I" * 1_000_000 + "LL",
        "a" * 1_000_000,
        "\u0301" * 1_000_000,
        "!1" * 500_000,
    ],
)
def test_a_text_of_a_million_characters_gets_a_bounded_answer(text: str) -> None:
    entries = [Entry(value="a"), Entry(value="kill"), Entry(kind="pattern", value="(?:a*)*b$"), Entry(value="a a a a")]
    (hits,) = Matcher([("mine@1", entries)]).find([f"{text} kill"])
    assert hits is not None
    assert any(text_of(hit, f"{text} kill") == "kill" for hit in hits.all)
    assert len(hits.all) <= len(entries) * MOST_HITS


def test_patterns_that_need_more_memory_than_they_may_are_refused() -> None:
    with pytest.raises(ValueError, match="RE2 takes no such pattern"):
        Entry(kind="pattern", value="((a{100}){100}){100}")
    with pytest.raises(ValueError, match="in every text"):
        Entry(kind="pattern", value="x*")
    for pattern in (r"\C", r"a\\\C"):
        with pytest.raises(ValueError, match="one byte and no character"):
            Entry(kind="pattern", value=pattern)
    assert found("a\\C", Entry(kind="pattern", value=r"a\\C")) == ["a\\C"]
    for pattern in ("(?=a)b", r"(a)\1", "(", "*", "a{2000}"):
        with pytest.raises(ValueError, match="RE2 takes no such pattern"):
            Entry(kind="pattern", value=pattern)
    assert [one.entry for one in Patterns(["b", "a"]).find(["xa"])[0]] == [1]


CSV = """kind,value,id,anywhere,exact,decide,categories
term,kill,,,,unsafe,Violent; PII
pattern,"\\b\\d{4},\\d{4}\\b",card,,,,
text,"two
lines",,,,safe,
term,sky,,true,yes,,
"""
BAD = """kind,value,decide,id,anywhere
pattern,(?=a)b,,,
term,,,,
digest,abc,,,
term,kill,,,
term,kill,,,
term,!!,,,
term,ok,safe,,
term,odd,bad,,
term,one two three four five six seven eight nine,,,
text,fine,,kill kill,
term,left,,same,
term,right,,same,
pattern,x,,,maybe
term,a,b,c,d,e
"""


def test_a_list_is_read_back_as_it_was_written() -> None:
    entries = read(CSV, "csv")
    assert [(one.kind, one.value, one.decide, one.anywhere, one.exact) for one in entries] == [
        ("term", "kill", "unsafe", False, False), ("pattern", r"\b\d{4},\d{4}\b", None, False, False),
        ("text", "two\nlines", "safe", False, False), ("term", "sky", None, True, True),
    ]  # fmt: skip
    assert entries[0].categories == ("Violent", "PII")
    for form in ("csv", "jsonl"):
        assert read("".join(reading.write(entries, form)), form) == entries
    assert [one.value for one in read("\ufeffkill\r\n\n white bread \n", "txt")] == ["kill", "white bread"]
    assert [reading.format_of(name) for name in ("a.CSV", "b.ndjson", "c", "d.txt")] == ["csv", "jsonl", "txt", "txt"]


def test_everything_that_is_wrong_is_said_with_its_line() -> None:
    with pytest.raises(ListError) as raised:
        read(BAD, "csv")
    assert str(raised.value).splitlines() == [
        "line 2: RE2 takes no such pattern: invalid perl operator: (?=",
        "line 3: value: it is missing",
        "line 4: a digest is the SHA-256 of a text: 64 digits of 0-9 and a-f",
        "line 6: the same stands in line 5",
        "line 7: there is no letter and no digit in it",
        "line 8: what a text holds makes it not safe as a whole: only a `text` or a `digest` can decide `safe`",
        "line 9: decide: Input should be 'safe', 'controversial' or 'unsafe'",
        "line 10: a term has at most 8 words and 200 characters: make it a `text` or a `pattern`",
        "line 11: id: String should match pattern '^$|^[A-Za-z0-9_.:-]{1,64}$'",
        "line 13: the same stands in line 12",
        "line 14: anywhere: Input should be a valid boolean, unable to interpret input",
        "line 15: 6 fields, and 5 columns",
    ]
    for text, form, cause in [
        ("", "txt", "there is no entry in it"), ("a,b\n", "csv", "line 1: there is no column `value`"),
        ("value,odd\n", "csv", "line 1: column 'odd' is unknown"),
        ('{"value": 1}\n[]\n{', "jsonl", "line 2: an entry is an object"),
        ('value\n"a', "csv", "no CSV"), ("x" * 5000, "txt", "line 1: value: longer than 4,000 characters"),
    ]:  # fmt: skip
        with pytest.raises(ListError) as raised:
            read(text, form)
        assert cause in str(raised.value)


def test_what_spreadsheets_write_is_read() -> None:
    for text in ("value;decide\r\nbad;Unsafe\r\n", "\ufeffvalue\tdecide\nbad\tUNSAFE", 'value,decide\r"bad",unsafe\r'):
        assert [(one.value, one.decide) for one in read(text, "csv")] == [("bad", "unsafe")], text
    odd = [Entry(kind="pattern", value="cr\rx"), Entry(kind="pattern", value='q"u,o;te\n'), Entry(value=" sum ")]
    assert read("".join(reading.write(odd, "csv")), "csv") == odd
    with pytest.raises(ListError, match="column 'value' stands there twice"):
        read("value,value\na,b\n", "csv")
    with pytest.raises(RejectedError, match="written as csv or jsonl"):
        list(reading.write(odd, "txt"))
    assert [one.value for one in read("a\rb\r", "txt")] == ["a", "b"]


def test_two_versions_are_compared_by_what_is_looked_for() -> None:
    old = [Entry(value="a"), Entry(value="b"), Entry(value="c", decide="unsafe")]
    new = [Entry(value="b"), Entry(value="c"), Entry(kind="text", value="a")]
    told = difference(old, new)
    assert (told.added, told.removed, told.changed) == ([new[2]], [old[0]], [(old[2], new[1])])

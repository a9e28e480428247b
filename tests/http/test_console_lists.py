"""Lists in the console, without a script: who may do what, whose reading is recorded, and that nobody's version is lost."""

from collections.abc import Iterator

import httpx2
import pytest

from guardfleet.lists.reading import read
from guardfleet.policy import reading
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.keys import DEFAULT_TENANT
from guardfleet.store.policy import lists, policies
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.stored import scalar
from tests.services.visiting import hidden, key_of, send, visitor

pytestmark = [with_broker("redis")]

CSV = "value,id,decide,categories\napple pie,pie,unsafe,Violent\nwhite bread,bread,,\n"
EVIL = "<script>alert(1)</script>"
HOSTILE = f'{{"kind": "text", "value": "{EVIL}\\u202e"}}\n{{"kind": "pattern", "value": "<img src=x onerror=alert(2)>"}}\n'


@pytest.fixture
def operator(url: str, db: Database, keyring: Keyring) -> Iterator[httpx2.Client]:
    with visitor(url, key_of(db, keyring, "operator")) as found:
        yield found


def stored(db: Database, text: str, name: str = "food", form: str = "csv") -> str:
    return lists.add(db, DEFAULT_TENANT, name, read(text, form))[0].label


def reads(db: Database) -> int:
    return len(list(audit.events(db, audit.Wanted(actions=["list.export"]))))


def test_a_list_is_written_mended_stored_applied_and_gone_back_from(operator: httpx2.Client, db: Database) -> None:
    assert "No list is stored" in operator.get("/console/lists").text
    assert "Edit a list" in operator.get("/console/lists/new").text
    wrong = send(operator, "/lists/save", name="food", form="csv", base="", entries=CSV + "$$,,,\n")
    assert wrong.status_code == 422
    assert "Line 4" in wrong.text
    assert "$$,,," in wrong.text
    assert "1 mistake" in send(operator, "/lists/check", name="", form="jsonl", base="", entries="{").text
    assert "A name has letters" in send(operator, "/lists/save", name="a b", form="csv", base="", entries=CSV).text
    assert send(operator, "/lists/save", name="food", form="xml", base="", entries=CSV).status_code == 400
    assert scalar(db, "select count(*) from term_list") == 0
    done = send(operator, "/lists/save", name="food", form="csv", base="", entries=CSV.replace("\n", "\r\n"))
    assert done.headers["location"] == "/console/lists/food@1?done=stored"
    page = operator.get("/console/lists/food@1").text
    assert "decides: unsafe" in page
    assert "apple" not in page
    edited = send(operator, "/lists/food@1/edit").text
    assert "apple pie,pie" in edited
    assert (hidden(edited, "base"), reads(db)) == ("food@1", 1)
    more = CSV + "rye bread,rye,,\n"
    assert (
        send(operator, "/lists/save", name="food", form="csv", base="food@1", entries=more)
        .headers["location"]
        .endswith("@2?done=stored")
    )
    for version in (2, 1):
        send(operator, f"/lists/food@{version}/activate")
        assert [one.label for one in lists.every(db, DEFAULT_TENANT) if one.is_active] == [f"food@{version}"]
    assert send(operator, "/lists/food@2/deactivate").status_code == 409
    send(operator, "/lists/food@1/deactivate")
    assert operator.get("/console/lists/named/food").headers["location"] == "/console/lists/food@2"


def test_entries_are_read_by_a_form_alone_and_that_is_recorded(operator: httpx2.Client, db: Database) -> None:
    label = stored(db, "\n".join(f"word{i}" for i in range(120)), form="txt")
    assert operator.get(f"/console/lists/{label}/entries").status_code == 405
    assert "word1<" not in operator.get(f"/console/lists/{label}").text
    assert reads(db) == 0
    first = send(operator, f"/lists/{label}/entries").text
    assert "word99<" in first
    assert "word100<" not in first
    assert "word100<" in send(operator, f"/lists/{label}/entries", at=hidden(first, "at")).text
    assert send(operator, f"/lists/{label}/entries", at="-1").status_code == 400
    assert reads(db) == 2


def test_two_versions_are_compared_by_counts_and_by_entries_only_if_asked(operator: httpx2.Client, db: Database) -> None:
    stored(db, CSV)
    stored(db, CSV.replace("white bread,bread,,", "rye bread,rye,,").replace("unsafe", "controversial"))
    counts = operator.get("/console/lists/diff?old=food@1&new=food@2").text
    assert ("rye" not in counts, "+1" in counts, "\u22121" in counts, reads(db)) == (True, True, True, 0)
    shown = send(operator, "/lists/diff", old="food@1", new="food@2").text
    assert "rye bread" in shown
    assert "white bread" in shown
    assert reads(db) == 2


def test_a_version_that_somebody_stored_meanwhile_is_shown_and_not_buried(operator: httpx2.Client, db: Database) -> None:
    stored(db, CSV)
    stored(db, CSV + "rye bread,rye,,\n")
    late = send(operator, "/lists/save", name="food", form="csv", base="food@1", entries=CSV + "cake,cake,,\n")
    assert late.status_code == 409
    assert "food@2 was stored meanwhile" in late.text
    assert "rye bread" in late.text
    assert (hidden(late.text, "base"), reads(db)) == ("food@2", 1)
    assert scalar(db, "select count(*) from term_list") == 2


def test_a_version_is_tried_on_a_text_that_is_not_kept(operator: httpx2.Client, db: Database) -> None:
    label = stored(db, CSV)
    page = send(operator, f"/lists/{label}/try", text=f"An APPLE p1e, {EVIL}").text
    assert "<mark>APPLE p1e</mark>" in page
    assert EVIL not in page
    assert "decides: unsafe" in page
    assert "Nothing of it is in the text" in send(operator, f"/lists/{label}/try", text="soup").text
    assert send(operator, f"/lists/{label}/try", text="x" * 100_001).status_code == 413


def test_what_others_wrote_is_text(operator: httpx2.Client, db: Database) -> None:
    label = stored(db, HOSTILE, form="jsonl")
    other = stored(db, "plain\n", form="txt")
    policies.activate(db, policies.add(db, DEFAULT_TENANT, reading.read(
        "name: p\ndefault: allow\nrules:\n  - {id: r, when: {lists: food}, action: block}\n"
    ))[0])  # fmt: skip
    for page in (
        send(operator, f"/lists/{label}/entries").text,
        send(operator, f"/lists/{label}/edit").text,
        send(operator, "/lists/diff", old=other, new=label).text,
        send(operator, "/lists/check", form="csv", entries=f"value,{EVIL}\n", name=EVIL, base=EVIL).text,
    ):
        assert EVIL not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;" in page
    assert "p@1" in operator.get(f"/console/lists/{label}").text


def test_a_viewer_reads_and_another_tenant_sees_nothing(url: str, db: Database, keyring: Keyring) -> None:
    label = stored(db, CSV)
    with visitor(url, key_of(db, keyring, "viewer")) as viewer:
        page = viewer.get(f"/console/lists/{label}").text
        assert "/activate" not in page
        assert "/edit" not in page
        assert viewer.get("/console/lists/new").status_code == 403
        for path in ("save", f"{label}/activate", f"{label}/deactivate", f"{label}/edit"):
            assert send(viewer, f"/lists/{path}", entries=CSV, form="csv", name="food").status_code == 403, path
        assert "apple pie" in send(viewer, f"/lists/{label}/entries").text
    with visitor(url, key_of(db, keyring, "operator", tenant="acme")) as other:
        assert "No list is stored" in other.get("/console/lists").text
        for path in (label, "named/food", f"diff?old={label}&new={label}"):
            assert other.get(f"/console/lists/{path}").status_code == 404, path
        for path in ("entries", "edit", "activate", "deactivate", "try"):
            assert send(other, f"/lists/{label}/{path}", text="x").status_code == 404, path
        assert send(other, "/lists/diff", old=label, new=label).status_code == 404
    with visitor(url, key_of(db, keyring, "reviewer")) as reviewer:
        assert reviewer.get("/console/lists").status_code == 403

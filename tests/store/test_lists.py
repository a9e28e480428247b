"""Lists on real PostgreSQL: looked for by a worker's moderator, kept as evidence, counted, and seen by no other tenant."""

import zlib
from collections import Counter
from typing import Any

import pytest

from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs.intake import Intake
from guardfleet.jobs.redecide import redecide
from guardfleet.lists.document import Entry
from guardfleet.policy.reading import read
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys, verdicts
from guardfleet.store.jobs import retention, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import lists, policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.policy.lists import Version
from guardfleet.store.postgres.database import Database
from tests.services.moderating import moderator
from tests.services.stored import LONG_AGO, finished_on, new_job, scalar
from tests.store.test_policies import told
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]
TENANT = 1
BAD = Entry(value="badword", decide="unsafe", categories=("Violent",))
ODD = Entry(value="oddword", id="odd")
ALLOWED = Entry(kind="text", value="a fine text [[unsafe]]", decide="safe")


def activated(db: Database, name: str, *entries: Entry, tenant_id: int = TENANT) -> Version:
    version, _ = lists.add(db, tenant_id, name, entries)
    lists.activate(db, version)
    return version


def moderated(db: Database, keyring: Keyring, moderator: Moderator, *contents: Any, **asked: Any) -> tuple[JobView, list[Any]]:
    """A job of these texts that the moderator has judged, and its verdicts."""
    with Intake(db, keyring, load_settings(shard_texts=40), new_job(**asked)) as taking:
        taking.add_all((i + 1, PayloadRow(f"id{i}", content)) for i, content in enumerate(contents))
        job = taking.seal()
    for no in range(-(-len(contents) // 40)):
        moderator(job.id, no)
    job = views.get(db, job.public_id, tenant_id=job.tenant_id)
    return job, [row for page in verdicts.in_order(db, job) for row in page.fields()]


def test_an_entry_decides_or_marks_and_the_verdict_says_which(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    activated(db, "bad", BAD)
    activated(db, "odd", ODD)
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "b4dword"}]
    job, (bad, odd, plain, talk) = moderated(db, keyring, moderator, "a b@dword and an ODDWORD", "oddword", "plain", turns)
    assert (bad["severity"], bad["categories"], bad["served_by"], bad["p_unsafe"]) == ("unsafe", ["Violent"], "list", None)
    where = f"on list bad@1, entry {BAD.name}, characters 2 to 9, and 1 more"
    assert bad["rationale"] == f"Unsafe in Violent; {where}; decided by the list."
    assert [hit["list"] for hit in bad["evidence"]["lists"]] == ["bad@1", "odd@1"]
    assert (odd["severity"], odd["served_by"]) == ("safe", "model")
    assert odd["evidence"] == {"lists": [{"list": "odd@1", "entry": "odd", "start": 0, "end": 7}]}
    assert "on list odd@1, entry odd, characters 0 to 7; judged by" in odd["rationale"]
    assert plain["evidence"] is None
    assert (talk["served_by"], talk["evidence"]["lists"][0]["turn"]) == ("list", 1)
    assert (job.unsafe, job.safe, job.saved) == (2, 2, 2)
    with db.session() as connection:
        shown = connection.execute(f"select severity, served_by, rationale from verdicts where job_id = {job.id} order by seq")
        assert [tuple(row) for row in shown] == [(r["severity"], r["served_by"], r["rationale"]) for r in (bad, odd, plain, talk)]


def test_a_verdict_of_a_list_serves_no_other_text_and_a_mark_is_its_texts_own(
    db: Database, keyring: Keyring, moderator: Moderator
) -> None:
    activated(db, "bad", BAD)
    odd = activated(db, "odd", ODD)
    _, first = moderated(db, keyring, moderator, "badword", "oddword", "oddword")
    assert [row["served_by"] for row in first] == ["list", "model", "duplicate"]
    lists.deactivate(db, odd)
    lists.deactivate(db, lists.get(db, TENANT, "bad"))
    _, second = moderated(db, keyring, moderator, "badword", "oddword")
    assert [(row["served_by"], row["evidence"]) for row in second] == [("model", None), ("cache", None)]


def test_a_text_that_is_allowed_needs_no_model_unless_one_has_said_otherwise(
    db: Database, keyring: Keyring, moderator: Moderator
) -> None:
    text = ALLOWED.value
    _, (model,) = moderated(db, keyring, moderator, text)
    assert (model["severity"], model["served_by"]) == ("unsafe", "model")
    activated(db, "fine", ALLOWED, Entry(kind="text", value="another", decide="safe"))
    _, rows = moderated(db, keyring, moderator, text, "Another!", "and another")
    assert [(row["severity"], row["served_by"]) for row in rows] == [("unsafe", "cache"), ("safe", "list"), ("safe", "model")]
    assert rows[0]["evidence"]["lists"][0]["list"] == "fine@1"
    assert ["decided" in row["evidence"]["lists"][0] for row in rows[:2]] == [False, True], "the model's word stood"


POLICY = """
name: mine
default: allow
rules:
  - {id: listed, when: {lists: [odd, other]}, action: review}
  - {id: unsafe, when: {severity: unsafe}, action: block}
"""


def test_a_policy_asks_for_lists_at_the_finish_and_later_alike(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    activated(db, "odd", ODD)
    activated(db, "bad", BAD)
    contents = ["oddword", "plain", "badword", "oddword badword", ""]
    version, _ = policies.add(db, TENANT, read(POLICY))
    policies.activate(db, version)
    live, _ = moderated(db, keyring, moderator, *contents)
    policies.deactivate(db, version)
    later, _ = moderated(db, keyring, moderator, *contents)
    policies.activate(db, version)
    redecide(db, version, Scope(TENANT))
    actions = [[one["action"] for one in told(db, job)] for job in (live, later)]
    assert actions == [["review", "allow", "block", "review", "allow"]] * 2


def test_hits_are_counted_across_versions_and_go_with_their_jobs(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    activated(db, "odd", ODD, Entry(value="never"))
    moderated(db, keyring, moderator, *["oddword oddword"] * 3, "plain")
    activated(db, "odd", ODD, BAD)
    job, _ = moderated(db, keyring, moderator, *[f"oddword {i}" for i in range(50)], "badword")
    uses = lists.uses(db, TENANT, "odd")
    assert {name: use.texts for name, use in uses.items()} == {"odd": 53, BAD.name: 1}
    assert uses["odd"].last_day == job.day
    assert lists.uses(db, TENANT, "other") == {}
    old = finished_on(db, keyring, LONG_AGO)
    with db.begin() as connection:
        connection.execute("insert into list_hit values (%(job)s, 0, 'odd', '{\"odd\": 1}')", {"job": old.id})
    assert lists.uses(db, TENANT, "odd")["odd"].texts == 54
    assert lists.uses(db, TENANT, "odd", job.day)["odd"].texts == 53
    retention.purge(db, [old.id])
    assert retention.expire(db, "verdict", old.day)
    assert lists.uses(db, TENANT, "odd")["odd"].texts == 53


def test_all_entries_that_a_text_holds_are_counted(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    many = [Entry(value=f"word{chr(97 + at // 26)}{chr(97 + at % 26)}x") for at in range(60)]
    activated(db, "many", *many)
    moderated(db, keyring, moderator, " ".join(entry.value for entry in many), many[0].value)
    assert {name: use.texts for name, use in lists.uses(db, TENANT, "many").items()} == {
        entry.name: 2 if entry == many[0] else 1 for entry in many
    }


def test_what_decides_hides_no_other_list_from_a_policy(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    activated(db, "bad", BAD)
    activated(db, "odd", ODD)
    version, _ = policies.add(db, TENANT, read(POLICY))
    policies.activate(db, version)
    job, _ = moderated(db, keyring, moderator, "badword " * 30 + "oddword")
    assert [one["action"] for one in told(db, job)] == ["review"]


def test_versions_are_kept_one_of_a_name_is_active_and_going_back_is_activating(db: Database) -> None:
    first = activated(db, "mine", BAD)
    assert lists.add(db, TENANT, "mine", [BAD]) == (lists.get(db, TENANT, "mine@1"), False)
    second, is_new = lists.add(db, TENANT, "mine", [BAD, ODD])
    assert (is_new, second.label, second.n, lists.get(db, TENANT, "mine").label) == (True, "mine@2", 2, "mine@1")
    assert lists.entries(db, second) == [BAD, ODD]
    assert lists.activate(db, second) == "mine@1"
    assert lists.activate(db, first) == "mine@2"
    assert [(one.label, one.is_active) for one in lists.every(db, TENANT)] == [("mine@2", False), ("mine@1", True)]
    assert (lists.deactivate(db, second), lists.deactivate(db, first)) == (False, True)
    for name, error in (("mine@3", NotFoundError), ("none", NotFoundError), ("mine@x", RejectedError)):
        with pytest.raises(error):
            lists.get(db, TENANT, name)


def test_another_tenants_lists_are_neither_seen_nor_looked_for(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    keys.create(db, keyring, name="x", tenant="acme")
    acme = keys.tenant_id(db, "acme")
    activated(db, "bad", BAD)
    _, mine = moderated(db, keyring, moderator, "badword")
    theirs, rows = moderated(db, keyring, moderator, "badword", tenant_id=acme)
    assert Counter(row["served_by"] for row in (*mine, *rows)) == {"list": 1, "model": 1}
    assert theirs.unsafe == 0
    assert (lists.every(db, acme), lists.uses(db, acme, "bad")) == ([], {})
    with pytest.raises(NotFoundError):
        lists.get(db, acme, "bad")


def test_a_list_of_a_newer_release_lets_its_texts_wait_and_leaves_none_unlisted(
    db: Database, keyring: Keyring, moderator: Moderator
) -> None:
    version = activated(db, "mine", BAD)
    with db.begin() as connection:
        newer = zlib.compress(b'{"kind": "smell", "value": "odd"}')
        connection.execute("update term_list set entries = %(entries)s where id = %(id)s", {"entries": newer, "id": version.id})
    job, rows = moderated(db, keyring, moderator, "badword")
    assert (rows, job.done) == ([], 0)
    assert scalar(db, f"select claims::text || failures || state from shard where job_id = {job.id}") == "000"


def test_the_matcher_of_a_set_of_lists_is_made_once(db: Database) -> None:
    version = activated(db, "mine", BAD)
    assert lists.matcher(db, [version.id]) is lists.matcher(db, (version.id,))

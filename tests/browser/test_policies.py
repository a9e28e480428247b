"""Policies and lists by keyboard: written with mistakes, mended, stored, tried on a real job, applied, and gone back from."""

import pytest
from playwright.sync_api import Browser

from guardfleet.domain.options import JobOptions
from guardfleet.policy.reading import read
from guardfleet.store.keys import DEFAULT_TENANT
from guardfleet.store.policy import policies
from tests.browser.conftest import Site
from tests.services.browsing import Person, person

pytestmark = [pytest.mark.slow]

WRONG = """\
name: house
default: allow
rules:
  - id: unsafe
    when: {severty: unsafe}
    action: block
  - id: unsure
    when: {probability: {not_safe: {at_least: 30}}}
    action: review
"""
MENDED = WRONG.replace("severty", "severity").replace("at_least: 30", "at_least: 0.3")
STRICTER = MENDED.replace("default: allow", "default: review")
TERMS = "value,id,decide,categories\napple pie,pie,unsafe,Violent\nwhite bread,bread,,\n$$,,,\n"
EDITOR = "Document, in YAML or JSON"


def writes(visitor: Person, text: str) -> None:
    visitor.presses("Control+a")
    visitor.types(text)


def judged(site: Site) -> str:
    """A job that has ended."""
    texts = [f"A friendly sentence about the weather, number {at}." for at in range(30)]
    job = site.client.submit(texts, JobOptions(name="weather"))
    assert len(list(site.client.results(job.id))) == 30
    return job.id


def test_a_policy_is_mended_stored_and_tried_on_a_job(browser: Browser, site: Site) -> None:
    job = judged(site)
    with person(browser, site.origin, key=site.keys["operator"]) as visitor:
        visitor.goes_to("/console/policies")
        visitor.presses("n")
        visitor.sees("No mistakes: strict, 3 rules.")
        visitor.reaches(EDITOR)
        writes(visitor, WRONG)
        visitor.sees("2 mistakes")
        visitor.sees("write 0.3 for 30 %")
        visitor.looks("policies-edit")
        visitor.uses("Line 5")
        assert visitor.page.evaluate("document.getSelection().toString()").strip() == "when: {severty: unsafe}"
        writes(visitor, MENDED)
        visitor.sees("No mistakes: house, 2 rules.")
        visitor.uses("Save as a new version")
        visitor.sees("Stored as a new version.")
        visitor.sees("the probability of not_safe is at least 0.3")
        visitor.looks("policies-version")

        visitor.presses("s")
        visitor.sees("What a policy would change of stored verdicts.")
        visitor.reaches("Of the job")
        visitor.types(job)
        visitor.uses("Simulate")
        visitor.sees("What would change")
        visitor.sees("Which rule would decide")
        assert "30" in visitor.page.locator(".figures").inner_text()
        visitor.looks("policies-simulate")


def test_a_policy_is_applied_changed_and_gone_back_from_in_one_step(browser: Browser, site: Site) -> None:
    policies.add(site.db, DEFAULT_TENANT, read(MENDED.replace("house", "garden")))
    with person(browser, site.origin, key=site.keys["operator"]) as visitor:
        visitor.page.on("dialog", lambda dialog: dialog.accept())
        visitor.goes_to("/console/policies/garden@1")
        visitor.uses("Activate")
        visitor.sees("It is applied from now on.")
        visitor.presses("e")
        visitor.sees("It is stored on top of garden@1")
        visitor.reaches(EDITOR)
        writes(visitor, STRICTER.replace("house", "garden"))
        visitor.uses("Save as a new version")
        visitor.sees("Stored as a new version.")
        visitor.uses("Compare with garden@1")
        visitor.sees("What garden@2 changes of garden@1.")
        visitor.looks("policies-diff")
        visitor.goes_to("/console/policies/garden@2")
        visitor.uses("Activate")
        visitor.sees("It is applied from now on.")
        visitor.uses("Apply garden@1")
        visitor.sees("It is applied from now on.")
        assert policies.applied_labels(site.db, DEFAULT_TENANT)["active"] == "garden@1"
        visitor.uses("Apply to stored verdicts")
        visitor.sees("Texts that it has decided of are left as they are.")
        visitor.reaches("Of the job")
        visitor.types(judged(site))
        visitor.uses("Apply")
        visitor.sees("All of them are decided.")
        visitor.looks("policies-redecide")
        visitor.goes_to("/console/policies")
        visitor.looks("policies")
        visitor.goes_to("/console/policies/garden@1")
        visitor.uses("Deactivate")
        visitor.sees("It is no longer applied.")


def test_a_list_is_mended_stored_tried_on_a_text_applied_and_compared(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["operator"], dark=True) as visitor:
        visitor.page.on("dialog", lambda dialog: dialog.accept())
        visitor.goes_to("/console/lists")
        visitor.presses("n")
        visitor.sees("It is stored as the first version of its name.")
        visitor.reaches("Name")
        visitor.types("food")
        visitor.reaches("Entries")
        writes(visitor, TERMS)
        visitor.sees("1 mistake")
        visitor.looks("lists-edit")
        visitor.uses("Line 4")
        visitor.presses("Delete")
        visitor.sees("No mistakes: 2 entries.")
        visitor.uses("Save as a new version")
        visitor.sees("Stored as a new version.")
        visitor.reaches("Text")
        visitor.types("They sell APPLE p1e and white bread here.")
        visitor.uses("Find")
        visitor.sees("2 hits")
        visitor.looks("lists-version")
        visitor.uses("Activate")
        visitor.sees("It is applied from now on.")
        visitor.presses("e")
        visitor.sees("It is stored on top of food@1.")
        visitor.reaches("Entries")
        visitor.presses("Control+End")
        visitor.types("\nterm,rye bread,rye,,\n")
        visitor.sees("No mistakes: 3 entries.")
        visitor.uses("Save as a new version")
        visitor.sees("Stored as a new version.")
        visitor.uses("Compare with food@1")
        visitor.sees("What food@2 changes of food@1.")
        visitor.uses("Show entries")
        visitor.sees("rye bread")
        visitor.looks("lists-diff")
        visitor.goes_to("/console/lists/food@2")
        visitor.uses("Show entries")
        visitor.sees("Found in texts")
        visitor.looks("lists-entries")
        visitor.goes_to("/console/lists")
        visitor.looks("lists")
        visitor.goes_to("/console/lists/food@1")
        visitor.uses("Deactivate")
        visitor.sees("It is no longer applied.")


def test_a_policy_for_prompts_is_stored_and_compared(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["operator"]) as visitor:
        visitor.goes_to("/console/policies/prompts")
        visitor.presses("n")
        visitor.sees("Edit a policy for prompts")
        visitor.reaches("Name")
        visitor.types("refunds")
        visitor.reaches("Text that is put into the prompt")
        visitor.types("Nobody promises a refund.")
        visitor.uses("Save as a new version")
        visitor.sees("Stored as a new version.")
        visitor.presses("e")
        visitor.sees("Edit a policy for prompts")
        visitor.reaches("Text that is put into the prompt")
        visitor.presses("Control+End")
        visitor.types("\nNobody asks for one.")
        visitor.looks("policies-prompt-edit")
        visitor.uses("Save as a new version")
        visitor.sees("Stored as a new version.")
        visitor.uses("Compare with refunds@1")
        visitor.sees("Nobody asks for one.")
        visitor.goes_to("/console/policies/prompts/refunds@2")
        visitor.looks("policies-prompt")

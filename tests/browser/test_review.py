"""Reviewing by keyboard alone: a queue is made, texts are looked at and judged, taken back, skipped; a case is settled."""

import pytest
from playwright.sync_api import Browser

from guardfleet.policy.reading import read
from guardfleet.store.policy import policies
from tests.browser.conftest import Site
from tests.services.browsing import Person, person
from tests.services.fleet import until

pytestmark = [pytest.mark.slow]
REVIEW = "name: look\ndefault: review\n"
TENANT = 1
TEXTS = [f"A harmless text about gardens, number {i}." for i in range(4)]


def made(site: Site) -> str:
    """A job whose texts a policy sends to review, which is applied to no other job."""
    version, _ = policies.add(site.db, TENANT, read(REVIEW))
    policies.activate(site.db, version)
    job = site.client.submit(TEXTS)
    until(lambda: site.client.status(job.id).is_final, what="the job's end")
    policies.deactivate(site.db, version)
    return job.id


def sees_text(somebody: Person, *, veiled: bool) -> None:
    somebody.page.wait_for_function(
        "veiled => (getComputedStyle(document.querySelector('.calm .text')).filter !== 'none') === veiled", arg=veiled
    )


def decides(somebody: Person, *keys: str) -> None:
    before = somebody.page.input_value("[name=task] >> nth=0")
    somebody.presses(*keys)
    somebody.page.wait_for_function("before => document.querySelector('[name=task]')?.value !== before", arg=before)


def makes_a_queue(lead: Person, job: str) -> None:
    lead.goes_to("/console/review")
    lead.presses("c")
    lead.sees("Only of this job")
    lead.reaches("Name")
    lead.types("night")
    lead.reaches("Only of this job")
    lead.types(job)
    lead.reaches("Percent of texts that a second person judges blindly")
    lead.presses("Control+a")
    lead.types("100")
    lead.looks("review-new-queue")
    lead.uses("Save")
    lead.sees("The queue is made.")


def reviews(reviewer: Person) -> None:
    """Judge two of four texts, skip one, and leave with one in hand."""
    reviewer.looks("review")
    reviewer.presses("Enter")
    reviewer.sees("What is it?")
    reviewer.page.wait_for_load_state()  # the page's script listens to keys from then on
    sees_text(reviewer, veiled=True)
    reviewer.page.keyboard.down("Space")
    sees_text(reviewer, veiled=False)
    reviewer.looks("review-unveiled")
    reviewer.page.keyboard.up("Space")
    sees_text(reviewer, veiled=True)
    reviewer.looks("review-item")
    decides(reviewer, "3", "v", "Enter")
    decides(reviewer, "u")
    reviewer.sees("Taken back")
    decides(reviewer, "2", "p", "n")
    decides(reviewer, "s")
    reviewer.sees("Skipped")
    decides(reviewer, "1", "n")
    reviewer.uses("How texts are shown")
    reviewer.page.wait_for_url("**/review/settings")
    reviewer.looks("review-settings")
    reviewer.reaches("Veil texts until I hold the space bar")
    reviewer.presses("Space")
    reviewer.uses("Save")
    reviewer.sees("Saved.")


def reviews_the_rest(lead: Person) -> None:
    """Judge the skipped text, and the two that were judged, a second time."""
    lead.goes_to("/console/review")
    lead.uses("Review night")
    lead.sees("What is it?")
    for _ in range(2):
        decides(lead, "1", "n")
    lead.presses("1", "n")
    lead.sees("You hold no text")
    lead.looks("review-none")


def test_a_queue_is_made_reviewed_and_settled_by_keyboard(browser: Browser, site: Site) -> None:
    job = made(site)
    with person(browser, site.origin, key=site.keys["operator"]) as lead:
        makes_a_queue(lead, job)
        with person(browser, site.origin, key=site.keys["reviewer"]) as reviewer:
            reviews(reviewer)
        reviews_the_rest(lead)
        lead.goes_to("/console/review")
        lead.looks("review-operator")
        lead.uses("night")
        lead.sees("Where two people differ")
        lead.looks("review-results")
        lead.uses("text 0")
        lead.sees("You are one of the two who differ")
        lead.looks("review-case")
        with person(browser, site.origin, key=site.keys["admin"], dark=True) as third:
            third.goes_to(lead.page.url.removeprefix(site.origin))
            third.sees("This is right")
            third.looks("review-case-dark")
            third.presses("2", "n")
            third.sees("Resolved: this decision counts")

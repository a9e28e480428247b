"""Verdicts by the keyboard alone: filters, rows, one verdict and its text, words in texts; and without any script."""

import pytest
from playwright.sync_api import Browser

from guardfleet.domain.options import JobOptions
from tests.browser.conftest import Site
from tests.services.browsing import person
from tests.services.fleet import until

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def job(site: Site) -> str:
    """An ended job of the demo model: enough texts for a second page."""
    texts = [{"id": f"note-{i:03}", "text": f"Meeting note number {i}: the garden gate is painted green."} for i in range(120)]
    made = site.client.submit(texts, JobOptions(name="garden"))
    until(lambda: site.client.status(made.id).status == "completed", what="the verdicts")
    return str(made.id)


def test_a_person_finds_a_verdict_and_reads_its_text(browser: Browser, site: Site, job: str) -> None:
    with person(browser, site.origin, key=site.keys["viewer"]) as viewer:
        viewer.goes_to("/console/verdicts")
        viewer.looks("verdicts")
        viewer.presses("/")
        assert viewer.page.evaluate("document.activeElement.name") == "severity"
        viewer.reaches("Row id")
        viewer.types("note-042")
        viewer.presses("Enter")
        viewer.sees("That is all.")
        assert "row=note-042" in viewer.page.url
        viewer.page.evaluate("document.activeElement.blur()")
        viewer.presses("j")
        viewer.presses("Enter")
        viewer.page.wait_for_url("**/verdicts/job_*/42")
        viewer.sees("No policy decided of this text.")
        viewer.uses("Show text")
        viewer.sees("Meeting note number 42: the garden gate is painted green.")
        viewer.sees("It was recorded that you read this.")
        viewer.looks("verdict")


def test_rows_and_pages_are_reached_by_single_keys(browser: Browser, site: Site, job: str) -> None:
    with person(browser, site.origin, key=site.keys["operator"], dark=True) as operator:
        operator.goes_to(f"/console/verdicts?job={job}")
        operator.sees("note-000")
        operator.presses("j", "j", "j", "k")
        assert operator.page.evaluate("document.activeElement.innerText") == "note-001"
        operator.looks("verdicts-dark")
        operator.presses("n")
        operator.sees("note-050")
        operator.reaches("Words, exactly, in whichever case")
        operator.types("NUMBER 11")
        operator.presses("Enter")
        operator.sees("note-110")
        assert "NUMBER" not in operator.page.url
        operator.looks("words-in-texts")
        operator.presses("j", "Enter")
        operator.page.wait_for_url("**/verdicts/job_*/11")


def test_all_of_it_works_without_a_script(browser: Browser, site: Site, job: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"{site.origin}/console/sign-in")
        page.get_by_label("API key").fill(site.keys["viewer"])
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "/sign-in" not in url)
        page.goto(f"{site.origin}/console/verdicts")
        page.get_by_label("Row id").fill("note-007")
        page.get_by_role("button", name="Filter", exact=True).click()
        page.get_by_role("link", name="note-007").first.click()
        page.get_by_role("button", name="Show text").click()
        page.get_by_text("Meeting note number 7:").wait_for()
    finally:
        context.close()

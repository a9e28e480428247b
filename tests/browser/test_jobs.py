"""Jobs, by keyboard: a file is dropped, looked at and submitted; its job runs, is read, controlled and found again."""

import json
from collections.abc import Sequence

import pytest
from playwright.sync_api import Browser

from guardfleet.domain.options import JobOptions
from tests.browser.conftest import Site
from tests.services.browsing import Person, person

pytestmark = [pytest.mark.slow]
DROP = """([name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name, { type: "text/plain" }));
  for (const type of ["dragover", "drop"]) {
    const event = new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector("[data-drop]").dispatchEvent(event);
  }
}"""
ROWS = [
    {
        "id": f"r{at}",
        "comment": f"A friendly sentence about the weather, number {at}.",
        "lang": ("en", "zh")[at % 2],
        "source": "forum",
    }
    for at in range(40)
]


def drops(visitor: Person, name: str, rows: Sequence[object]) -> None:
    visitor.page.evaluate(DROP, [name, "\n".join(map(json.dumps, rows))])


def test_a_dropped_file_becomes_a_job_whose_page_fills_while_it_runs(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["operator"]) as visitor:
        visitor.goes_to("/console/jobs")
        visitor.presses("n")
        visitor.sees("File with the texts")
        visitor.looks("jobs-new")
        drops(visitor, "weather.jsonl", [*ROWS, 7])
        visitor.sees("Choose the column that has the text.")
        visitor.uses("Look again")
        visitor.sees("A friendly sentence about the weather, number 1.")
        visitor.looks("jobs-preview")
        visitor.uses("Submit the job")
        visitor.sees("The job was submitted.")
        visitor.sees("By language")
        visitor.looks("jobs-job")
        visitor.reaches("Key")
        visitor.presses("s")
        visitor.sees("By source")
        visitor.goes_to("/console/jobs")
        visitor.sees("weather.jsonl")
        visitor.looks("jobs-list")
        visitor.presses("/")
        visitor.types("no such name")
        visitor.presses("Enter")
        visitor.sees("No job is like this.")
        visitor.looks("jobs-none")


def test_a_job_is_paused_resumed_and_cancelled_without_a_mouse(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["operator"], dark=True) as visitor:
        visitor.page.on("dialog", lambda dialog: dialog.accept())
        job = site.client.submit(
            [f"Another friendly sentence {at}." for at in range(3000)], JobOptions(name="controlled", priority=-100)
        )
        visitor.goes_to(f"/console/jobs/{job.id}")
        visitor.uses("Pause")
        visitor.sees("The job is paused")
        visitor.looks("jobs-paused-dark")
        visitor.uses("Resume")
        visitor.sees("The job goes on.")
        visitor.uses("Cancel")
        visitor.sees("The job was cancelled")


def test_a_file_is_chosen_and_submitted_without_any_script(browser: Browser, site: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.origin + "/console/sign-in")
    page.fill("#key", site.keys["operator"])
    page.click("button.primary")
    page.goto(site.origin + "/console/jobs/new")
    page.set_input_files("#file", {"name": "plain.txt", "mimeType": "text/plain", "buffer": b"A calm line.\nAnother calm line.\n"})
    page.click("button.primary")
    page.get_by_text("2 rows are in the file").wait_for()
    page.click("button.primary")
    page.get_by_text("The job was submitted.").wait_for()
    context.close()

"""The report as a file in a browser: nothing is asked, nothing is wider than the screen, texts are veiled until opened."""

import pathlib

import pytest
from playwright.sync_api import Browser

from guardfleet.domain import ids
from guardfleet.domain.options import JobOptions
from guardfleet.policy.document import Policy
from guardfleet.report.contents import gather
from guardfleet.report.rendering import render
from guardfleet.store.jobs import views
from guardfleet.store.policy import policies
from tests.browser.conftest import Site
from tests.services.browsing import Person
from tests.services.fleet import until

pytestmark = [pytest.mark.slow]
LANGUAGES = ("en", "zh", "de", "sw", None)
RULES = [{"id": "doubtful", "when": {"probability": {"not_safe": {"at_least": 0.5}}}, "action": "review"}]


def test_a_report_reads_well_at_both_widths_in_light_dark_and_print(browser: Browser, site: Site, tmp_path: pathlib.Path) -> None:
    made, _ = policies.add(site.db, 1, Policy.model_validate({"name": "house", "default": "allow", "rules": RULES}))
    policies.activate(site.db, made)
    words = ("the lake is calm", "bread needs flour", "he said no", "what a day", "nobody came")
    rows = [
        {"id": f"post-{i}", "text": f"{words[i % 4]} {i}", "metadata": {"lang": LANGUAGES[i % 5]} if LANGUAGES[i % 5] else {}}
        for i in range(300)
    ]
    label = site.client.submit([*rows, {"id": "no text"}], JobOptions(name="posts-of-november.jsonl")).id
    until(lambda: site.client.status(label).is_final, what="the job")
    policies.deactivate(site.db, made)
    job = views.get(site.db, ids.JOB.parse(label))
    for language, scheme in (("en", "light"), ("zh", "dark")):
        file = tmp_path / f"{language}.html"
        report = gather(site.db, site.keyring, job, price=2.5, with_text=True, examples=2)
        file.write_text(render(report, language=language))
        page = browser.new_page(color_scheme=scheme, java_script_enabled=True)
        reader = Person(page, "file://")
        page.goto(file.as_uri())
        reader.looks(f"report-{language}-{scheme}")
        veiled = page.locator("details pre").first
        if veiled.count():
            assert not veiled.is_visible()
            page.locator("summary").first.press("Enter")
            veiled.wait_for()
            reader.looks(f"report-{language}-opened")
        page.emulate_media(media="print")
        reader.looks(f"report-{language}-print")
        assert not reader.errors
        assert reader.elsewhere == []
        page.close()

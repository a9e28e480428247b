"""The report as a file in a browser: nothing is asked, nothing is wider than the screen, texts are veiled until opened."""

import pathlib

import pytest
from playwright.sync_api import Browser

from guardfleet.policy.document import Policy
from guardfleet.report.contents import gather
from guardfleet.report.rendering import render
from guardfleet.security.encryption import Keyring
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from tests.services.browsing import WIDE, Person
from tests.services.judged import SAFE, UNSAFE, UNSURE, failed
from tests.store.test_report import judged

pytestmark = [pytest.mark.slow]
LANGUAGES = ("en", "zh", "de", "sw", None)
RULES = [{"id": "harmful", "when": {"severity": "unsafe"}, "action": "block"}]


def test_a_report_reads_well_at_both_widths_in_light_dark_and_print(
    browser: Browser, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    made, _ = policies.add(db, 1, Policy.model_validate({"name": "house", "default": "allow", "rules": RULES}))
    policies.activate(db, made)
    said = [SAFE] * 60 + [UNSURE] * 9 + [UNSAFE] * 14 + [failed("too_long")] * 3
    spoken = [{"lang": LANGUAGES[i % 5]} if LANGUAGES[i % 5] else {} for i in range(len(said))]
    job = judged(db, keyring, said, spoken, name="posts-of-november.jsonl")
    for language, scheme in (("en", "light"), ("zh", "dark")):
        file = tmp_path / f"{language}.html"
        file.write_text(render(gather(db, keyring, job, price=2.5, with_text=True, examples=2), language=language))
        page = browser.new_page(color_scheme=scheme)
        reader = Person(page, "file://")
        page.goto(file.as_uri())
        veiled = page.locator("details pre").first
        assert not veiled.is_visible()
        page.locator("summary").first.press("Enter")
        veiled.wait_for()
        reader.looks(f"report-{language}-{scheme}")
        page.emulate_media(media="print")
        reader.looks(f"report-{language}-print", screens=[WIDE])  # paper has no other width
        assert reader.errors == []
        assert reader.elsewhere == []
        page.close()

"""Trying the guard, by the keyboard alone, against a real worker."""

import pytest
from playwright.sync_api import Browser

from guardfleet.policy.document import Policy
from guardfleet.store.policy import policies
from tests.browser.conftest import Site
from tests.services.browsing import person

pytestmark = [pytest.mark.slow]
RULE = {"id": "all", "when": {"severity": ["safe", "controversial", "unsafe"]}, "action": "review", "reason": "trial"}


def test_a_person_tries_a_text_a_conversation_and_two_policies(browser: Browser, site: Site) -> None:
    for document in ({"name": "mild", "default": "allow"}, {"name": "careful", "default": "allow", "rules": [RULE]}):
        policies.add(site.db, 1, Policy.model_validate(document))
    with person(browser, site.origin, key=site.keys["operator"]) as visitor:
        visitor.goes_to("/console/try")
        visitor.sees("The verdict will stand here")
        visitor.looks("try-empty")
        visitor.reaches("Text")
        visitor.types("How do I bake bread?\nI have flour and <b>water</b>.")
        visitor.presses("Control+Enter")
        visitor.sees("DEMO MODEL")
        visitor.sees("Probabilities")
        assert visitor.page.url == f"{site.origin}/console/try"
        assert visitor.page.input_value("#text").startswith("How do I bake bread?\n")
        visitor.looks("try-verdict")
        visitor.uses("Models, policies, detectors")
        visitor.reaches("Policy")
        visitor.presses("m")
        visitor.reaches("Compare with policy")
        visitor.presses("c")
        visitor.uses("Judge")
        visitor.sees("They differ")
        visitor.sees("trial")
        visitor.looks("try-two-policies")
        visitor.uses("Make it a conversation")
        visitor.sees("Text of turn 2")
        visitor.types("Mix them, and wait an hour.")
        visitor.looks("try-conversation")
        visitor.uses("Judge")
        visitor.sees("What was judged")
        assert visitor.page.locator(".try-role").all_inner_texts() == ["user", "assistant"] * 2  # on both sides
        visitor.uses("Remove turn 1")
        visitor.page.locator("#text").wait_for()
        assert visitor.page.input_value("#text") == "Mix them, and wait an hour."


def test_a_long_text_and_dark_colours(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["viewer"]) as visitor:
        visitor.page.emulate_media(color_scheme="dark")
        visitor.goes_to("/console/try")
        visitor.reaches("Text")
        visitor.types("A quiet day at the lake. " * 850)
        visitor.uses("Judge")
        visitor.sees("characters are not shown here")
        visitor.looks("try-long-dark")

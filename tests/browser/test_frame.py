"""Signing in, the menu, preferences: what surrounds every page."""

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Site
from tests.services.browsing import person

pytestmark = [pytest.mark.slow]


def test_a_person_signs_in_chooses_dark_colours_and_signs_out(browser: Browser, site: Site) -> None:
    with person(browser, site.origin) as visitor:
        visitor.goes_to("/console/sign-in")
        visitor.looks("sign-in")
        visitor.signs_in(site.keys["admin"])
        visitor.uses("admin")
        visitor.sees("Preferences")
        visitor.looks("preferences")
        visitor.reaches("Colours")
        visitor.presses("d")
        visitor.uses("Save")
        visitor.sees("Saved.")
        assert visitor.page.get_attribute("html", "data-theme") == "dark"
        visitor.looks("preferences-dark")
        visitor.uses("Sign out")
        visitor.sees("You are signed out.")

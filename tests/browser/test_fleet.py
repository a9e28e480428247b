"""The fleet's pages, by keyboard: workers, models, health, webhooks, keys, sessions, the trail."""

import re

import pytest
from playwright.sync_api import Browser

from guardfleet.store.events import endpoints
from tests.browser.conftest import Site
from tests.services.browsing import Person, person
from tests.services.webhooks import failed

pytestmark = [pytest.mark.slow]


def opens(somebody: Person, tab: str) -> None:
    """Follow one of the area's own links."""
    link = somebody.page.locator("nav.tabs").get_by_role("link", name=tab, exact=True)
    link.focus()
    somebody.presses("Enter")
    somebody.page.locator("nav.tabs a[aria-current]", has_text=tab).wait_for()


def agrees(somebody: Person) -> None:
    """Say yes to the next question."""
    somebody.page.once("dialog", lambda dialog: dialog.accept())


def test_an_operator_looks_at_workers_deploys_a_model_and_stops_it(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["operator"]) as operator:
        operator.uses("Fleet")
        operator.sees("Workers there")
        operator.page.locator("td", has_text="ready").first.wait_for()
        operator.looks("fleet-workers")
        opens(operator, "Models")
        operator.reaches("Model")
        operator.types("/nowhere/model")
        operator.uses("Deploy")
        operator.page.wait_for_url(re.compile("/fleet/models/deployment_"))
        operator.looks("fleet-model")
        asked = operator.page.get_by_text("Asked for by")
        asked.evaluate("one => { one.textContent = one.textContent.replace(/key_[0-9a-f]+/, 'oidc|' + 'm'.repeat(60)) }")
        assert "mmm" in asked.inner_text()
        operator.looks("fleet-model-by-a-long-id")
        opens(operator, "Models")
        operator.looks("fleet-models")
        opens(operator, "Health")
        operator.sees("A dispatcher leads")
        operator.looks("fleet-health")


def test_an_operator_makes_an_endpoint_and_sends_what_was_given_up_again(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["operator"]) as operator:
        operator.goes_to("/console/fleet/deliveries")
        operator.looks("fleet-endpoints")
        operator.reaches("Name")
        operator.types("receiver of tests")
        operator.reaches("Address")
        operator.types("http://127.0.0.1:9/hook")
        operator.uses("Create the endpoint")
        operator.sees("Copy it now")
        operator.looks("fleet-secret")
        made, *_ = endpoints.page(site.db, tenant_id=1, after=None, limit=1)
        failed(site.db, made, 2)
        operator.uses("receiver of tests")
        operator.sees("answered 503")
        operator.uses("Send all again")
        operator.page.locator(".notice").wait_for()
        operator.looks("fleet-endpoint")


def test_an_admin_makes_a_key_revokes_it_and_reads_who_did_that(browser: Browser, site: Site) -> None:
    with person(browser, site.origin, key=site.keys["admin"]) as admin:
        admin.goes_to("/console/fleet/keys")
        admin.reaches("Name: what it is for")
        admin.types("for the browser")
        admin.uses("Make the key")
        admin.sees("Copy it now")
        assert admin.page.locator(".once code").inner_text().startswith("gf_")
        assert "gf_" not in admin.page.url
        admin.looks("fleet-keys")
        agrees(admin)
        admin.uses("Revoke for the browser")
        admin.sees("Revoked: it is refused within seconds.")
        assert admin.page.locator(".once").count() == 0
        opens(admin, "Sessions")
        admin.sees("(this one)")
        admin.looks("fleet-sessions")
        opens(admin, "Audit trail")
        admin.reaches("Action")
        admin.presses("k", "e", "y", ".", "r", "e", "v")
        admin.uses("Show")
        admin.page.wait_for_url(re.compile("action=key.revoke"))
        admin.page.locator("td code", has_text="key.revoke").first.wait_for()
        admin.looks("fleet-audit")

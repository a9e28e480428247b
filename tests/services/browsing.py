"""A browser with a person at it, who has a keyboard and no mouse; and the witnesses of what the pages did meanwhile."""

import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, Request, TimeoutError, sync_playwright  # noqa: A004 - its own

from tests.conftest import missing
from tests.services.patience import patience

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = (1440, 900), (390, 844)
# Set it to a folder to keep pictures of the pages: `SCREENSHOTS=docs/images/console make test PYTEST_ARGS=tests/browser`.
SCREENSHOTS = os.environ.get("SCREENSHOTS")
MOST_TABS = 200
SERIOUS = ("serious", "critical")
PATIENCE_MS = 1000 * patience(30.0)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's browser; skipped with a reason where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        missing(f"no browser on the PATH: {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        # Inside a container its sandbox has no namespaces; the pages are our own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """Somebody at a page. Whatever the page asks of other origins, and every error in it, is held against it at the end."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page, self._origin = page, origin
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._asked)
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _asked(self, request: Request) -> None:
        if f"{urlsplit(request.url).scheme}://{urlsplit(request.url).netloc}" != self._origin:
            self.elsewhere.append(request.url)

    def goes_to(self, path: str) -> None:
        """Type an address."""
        answer = self.page.goto(self._origin + path)
        assert answer is not None
        assert answer.status < 400, f"{path}: {answer.status}"

    def signs_in(self, key: str) -> None:
        """Sign in by a key."""
        self.goes_to("/console/sign-in")
        self.reaches("API key")
        self.types(key)
        self.presses("Enter")
        self.page.wait_for_url(lambda url: "/sign-in" not in url)

    def presses(self, *keys: str) -> None:
        """Press keys, one after the other: `Enter`, `j`, `Control+Enter`."""
        for key in keys:
            self.page.keyboard.press(key)

    def types(self, text: str) -> None:
        """Type a text where the focus is."""
        self.page.keyboard.insert_text(text)

    def reaches(self, name: str) -> None:
        """Press Tab until the element with this accessible name has the focus."""
        for _ in range(MOST_TABS):
            if self._stands_at() == name:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"no Tab reaches {name!r}; it stands at {self._stands_at()!r}")

    def _stands_at(self) -> str:
        """The name of what has the focus; of the next page, if the one before is being left."""
        try:
            found: str = self.page.evaluate(FOCUSED)
        except Error:
            self.page.wait_for_load_state()
            found = self.page.evaluate(FOCUSED)
        return found

    def uses(self, name: str) -> None:
        """Go to a link or button by Tab, and press Enter."""
        self.reaches(name)
        self.presses("Enter")

    def sees(self, text: str) -> None:
        """Wait until the page shows this text."""
        try:
            self.page.get_by_text(text).first.wait_for()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not on {self.page.url}: {self.page.inner_text('main')[:2000]}") from None

    def looks(self, picture: str, *, screens: Sequence[tuple[int, int]] = (WIDE, NARROW)) -> None:
        """Hold a page to what every page must be, at both widths: nothing serious for axe, nothing wider than the screen."""
        for width, height in screens:
            self.page.set_viewport_size({"width": width, "height": height})
            found = Axe().run(self.page).response["violations"]
            serious = [
                f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert not serious, serious
            excess = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert excess <= 0, f"{excess} pixels wider than a screen of {width}: {self.page.evaluate(WIDER)}"
            if SCREENSHOTS:
                folder = pathlib.Path(SCREENSHOTS)
                folder.mkdir(parents=True, exist_ok=True)
                self.page.screenshot(path=folder / f"{picture}-{width}.png", full_page=True)
        self.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})

    def leaves(self) -> None:
        """Hold everything that the pages did against them."""
        assert not self.elsewhere, self.elsewhere
        assert not self.errors, self.errors


# The innermost elements that stand out of the screen.
WIDER = """() => [...document.querySelectorAll("main *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1
  && ![...one.children].some((child) => child.getBoundingClientRect().right > innerWidth + 1))
  .slice(0, 5).map((one) => one.outerHTML.slice(0, 160))"""

# The accessible name of the element with the focus, as far as pages here name things.
FOCUSED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return "";
  const label = one.labels?.[0]?.cloneNode(true);
  label?.querySelectorAll("input, select, textarea").forEach((field) => field.remove());
  return (one.getAttribute("aria-label") || label?.textContent || one.innerText || one.title || "").trim().replace(/\\s+/g, " ");
}"""


@contextmanager
def person(browser: Browser, origin: str, *, key: str | None = None, dark: bool = False) -> Iterator[Person]:
    """Somebody with a fresh profile; signed in, if a key is given. What the pages did wrong fails at the end of the block."""
    context = browser.new_context(
        viewport={"width": WIDE[0], "height": WIDE[1]}, color_scheme="dark" if dark else "light", locale="en-GB"
    )
    try:
        somebody = Person(context.new_page(), origin)
        if key is not None:
            somebody.signs_in(key)
        yield somebody
        somebody.leaves()
    finally:
        context.close()

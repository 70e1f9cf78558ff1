"""A real Chromium for tests: the system's, never one that is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

from installed import need

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Return where Chromium is; where it is missing, skip the test, or fail in continuous integration."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    need(None if found else "Chromium is not here: apt-get install chromium")
    assert found is not None
    return found


@contextmanager
def browsing() -> Iterator[Browser]:
    path = chromium()
    expect.set_options(timeout=60_000)  # for the slowest machine; what is there is not waited for
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


REFUSALS = (
    "window.refused = [];"
    "addEventListener('securitypolicyviolation', (event) => window.refused.push(event.violatedDirective))"
)
"""Notes what the page's policy refuses."""


class Watched:
    """A page, and all that went wrong on it: errors, refusals of its policy, requests elsewhere, dialogs."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.problems.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url, base))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.add_init_script(REFUSALS)

    def _asked(self, url: str, base: str) -> None:
        if not url.startswith((base, "data:", "blob:")):
            self.problems.append(f"a request to {url:.80}")

    def _said(self, kind: str, text: str) -> None:
        # Chromium itself says so of each answer that is an error.
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.problems.append(f"{kind}: {text}")

    def check(self) -> None:
        assert self.problems == []
        assert self.page.evaluate("window.refused") == []

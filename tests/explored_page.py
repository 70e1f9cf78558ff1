"""What a user does on the explorer's page, and what is seen there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Page, expect

from chromium import Watched
from explored import TOKEN, Explored


def watched(browser: Browser, explored: Explored, **options: Any) -> Iterator[Page]:
    """Open the page, without the token; at the end look that nothing went wrong on it."""
    context = browser.new_context(viewport={"width": 1200, "height": 760}, **options)
    context.set_default_timeout(60_000)
    page = context.new_page()
    watching = Watched(page, explored.base)
    page.goto(explored.base)
    yield page
    watching.check()
    context.close()


def enter(page: Page, token: str = TOKEN) -> None:
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Open").click()


def open_collection(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("button", name=name, exact=True).click()


def keys_shown(page: Page) -> list[str]:
    return page.locator(".row:not(.folder) .label").all_text_contents()


def count(page: Page) -> Any:
    return expect(page.locator("#count"))


def open_key(page: Page, key: str) -> None:
    page.get_by_role("treeitem", name=key, exact=True).click()
    expect(page.locator("#value h2")).to_have_text(key)


def contrast(page: Page, selector: str) -> float:
    """Return the contrast of a text with what is behind it, as WCAG defines it."""
    ratio: float = page.locator(selector).first.evaluate(
        """(element) => {
          const channels = (text) => text.match(/[\\d.]+/g).map(Number);
          const light = (text) => channels(text).slice(0, 3).map((each) => each / 255)
            .map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
            .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
          let behind = element;
          const ground = () => getComputedStyle(behind).backgroundColor;
          while ((channels(ground())[3] ?? 1) === 0) behind = behind.parentElement;
          const pair = [light(getComputedStyle(element).color), light(ground())];
          return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        }"""
    )
    return ratio

"""The explorer's page used by the keyboard, by night, on a small screen and with a server that is gone."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from langchain_core.documents import Document
from playwright.sync_api import Browser, Page, expect

from explored import TOKEN, Explored, exploring
from explored_page import contrast, count, enter, open_collection, open_key, watched
from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv.embeddings.vectors import pack

pytestmark = pytest.mark.slow


# -- errors -----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_told_and_another_try_goes_on(browser: Browser) -> None:
    with exploring() as explored:
        with KVStore("kv", explored.url) as store:
            store.mset([(f"k{number:05}", number) for number in range(2_000)])
        for page in watched(browser, explored):
            enter(page)
            count(page).to_have_text(re.compile("so far"))
            open_key(page, "k00001")
            page.context.set_offline(True)
            page.get_by_role("treeitem", name="k00003").click()
            expect(page.get_by_role("alert").last).to_contain_text("The server does not answer.")
            expect(page.locator("#value h2")).to_have_text("k00001")  # and that is the one marked in the list
            expect(page.get_by_role("treeitem", selected=True)).to_have_text("k00001")
            page.context.set_offline(False)
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#value h2")).to_have_text("k00003")
            expect(page.locator("#problem")).to_be_hidden()


def test_a_collection_that_is_not_there_is_told(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a", 1)])
    enter(page)
    page.get_by_label("Open a collection by its name").fill("missing")
    page.keyboard.press("Enter")

    expect(page.locator("#problem-text")).to_contain_text("missing")


# -- keyboard, light and dark, small screens --------------------------------------------------------------------------


def test_all_of_it_is_reached_by_the_keyboard(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a/b", {"c": [1]}), ("a/d", 2), ("e", 3)])
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    count(page).to_have_text("3 keys")
    page.keyboard.press("/")
    expect(page.locator("#prefix")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the tree by slashes
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("tree")).to_be_focused()
    page.keyboard.press("ArrowRight")  # opens the folder
    expect(page.locator(".row .label")).to_have_text(["a/", "b", "d", "e"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#value h2")).to_have_text("a/d")
    page.keyboard.press("Escape")
    expect(page.get_by_role("tree")).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator("#value h2")).to_have_text("a/b")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Copy: Key")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # to the folder, which closes
    expect(page.locator(".row .label")).to_have_text(["a/", "e"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_by_day_and_by_night(browser: Browser, explored: Explored, scheme: Any) -> None:
    with KVStore("kv", explored.url, ttl_s=3_600) as store:
        store.mset([("a", {"text": "b", "n": 1, "yes": True})])
    for page in watched(browser, explored, color_scheme=scheme):
        assert contrast(page, ".card .primary") >= 4.5
        enter(page)
        open_key(page, "a")
        texts = [".target", ".badge", "#count", ".row .label", "h2 bdi", ".chip.shape", ".chip.expiry", ".json .name"]
        for selector in [*texts, ".json .string", ".json .number", ".json .boolean", ".separators button"]:
            assert contrast(page, selector) >= 4.5, selector
        is_dark = page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
        assert is_dark == (scheme == "dark")
        page.get_by_role("button", name="Light or dark").click()
        assert (page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark") != is_dark


def test_at_360_pixels_nothing_scrolls_sideways(page: Page, explored: Explored) -> None:
    vector = pack([[math.sin(at) for at in range(900)]])[0]
    assert isinstance(vector, bytes)
    with KVByteStore("raw", explored.url) as raw, DocumentStore("documents", explored.url) as documents:
        raw.mset([("bytes", bytes(range(256))), ("k" * 3_000, vector), ("text", b"a" * 5_000)])
        documents.mset([("d", Document("w" * 500, metadata={"k" * 200: "v" * 900}))])
    page.set_viewport_size({"width": 360, "height": 700})

    def check() -> None:
        for selector in ("html", "body", ".panes", "#value", "#list", "#collections"):
            wide, room = page.locator(selector).evaluate("(each) => [each.scrollWidth, each.clientWidth]")
            assert wide <= max(room, 0) or room == 0, (selector, wide, room)

    check()
    enter(page)
    expect(page.get_by_role("navigation")).to_be_visible()
    check()
    for collection, keys in {"raw": ["bytes", "k" * 3_000, "text"], "documents": ["d"]}.items():
        open_collection(page, collection)
        for key in keys:
            expect(page.get_by_role("tree")).to_be_visible()
            check()
            page.get_by_role("treeitem", name=key, exact=True).click()
            expect(page.locator("#value h2")).to_have_text(key)
            check()
            page.get_by_role("button", name="Back").click()
        page.get_by_role("button", name="Back").click()
    expect(page.get_by_role("navigation")).to_be_visible()

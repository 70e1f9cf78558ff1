"""Renew the pictures of docs/explorer.md: ``make screenshots``."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path

from langchain_core.documents import Document
from PIL import Image
from playwright.sync_api import Page, expect

from chromium import browsing
from explored import TOKEN, Explored, exploring
from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv.embeddings.vectors import pack

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
TEXT = "\n\n".join(
    [
        "Parents and their parts",
        "A retriever finds small parts of a text, because a small part says one thing and its vector stands for it."
        " What a model needs to answer is the whole: the chapter, the page, the letter.",
        "So the parts go into a vector store, and their parents into a store by key. Each part remembers the key of its"
        " parent, and what is handed on is the parent, once, however many of its parts were found.",
    ]
)


def fill(url: str) -> None:
    chance = random.Random(11)
    with DocumentStore("handbook", url) as handbook:
        names = ["install", "retrieval", "storage", "tuning"]
        handbook.mset(
            [
                (
                    f"guide/{name}/{page:02}.md",
                    Document(TEXT, metadata={"source": f"handbook/{name}", "page": page, "tags": ["guide", "v2"]}),
                )
                for name in names
                for page in range(1, 13)
            ]
        )
    with KVStore("sessions", url, ttl_s=26 * 3_600) as sessions:
        messages = [
            {"role": "human", "content": "Where are the values kept?"},
            {"role": "ai", "content": "In a file, in memory, in a database or a service: the same class for each."},
        ]
        sessions.mset(
            [
                (f"user:{user:05}:thread", {"user": user, "model": {"name": "small", "temperature": 0.2},
                 "messages": messages, "tokens": 10**20 + user, "closed": user % 2 == 0, "rating": None})
                for user in range(1, 2_400)
            ]
        )  # fmt: skip
        for name in ("ada", "grace"):
            sessions.namespace("memories", name).mset([("likes", ["chess", "tea"]), ("home", "London")])
    with KVByteStore("embeddings", url) as embeddings:
        vectors = [[chance.gauss(0, 0.02) * (1 + 0.9 * math.sin(at / 70)) for at in range(1_536)] for _ in range(40)]
        packed = [each for each in pack(vectors) if isinstance(each, bytes)]
        keys = [f"text-small:{chance.randbytes(12).hex()}" for _ in packed]
        embeddings.mset(list(zip(keys, packed, strict=True)))
        embeddings.mset([("logo.png", b"\x89PNG\r\n\x1a\n" + chance.randbytes(600))])


def save(page: Page, name: str) -> None:
    """Save what is to be seen, with 256 colours, which halves it."""
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide")))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(FOLDER / f"explorer-{name}.png", optimize=True)


def choose(page: Page, collection: str) -> None:
    page.get_by_role("navigation").get_by_role("button", name=collection, exact=True).click()
    expect(page.get_by_role("treeitem").first).to_be_visible()


def draw(page: Page, explored: Explored) -> None:
    page.goto(explored.base)
    page.get_by_label("Token", exact=True).fill("not the token")
    page.keyboard.press("Enter")
    expect(page.locator("#login-error")).to_be_visible()
    save(page, "error")
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")
    choose(page, "handbook")
    page.get_by_role("button", name="a/b", exact=True).click()
    for folder in ("guide/", "retrieval/"):
        page.get_by_role("treeitem", name=folder).click()
    page.get_by_role("treeitem", name="03.md").click()
    expect(page.locator(".prose")).to_be_visible()
    page.mouse.move(600, 740)
    save(page, "document")
    choose(page, "sessions")
    page.mouse.move(600, 740)
    save(page, "list")
    page.locator("#prefix").fill("user:0012")
    expect(page.locator("#count")).to_have_text("10 keys")
    page.get_by_role("treeitem", name="user:00123:thread").click()
    expect(page.locator(".json")).to_be_visible()
    page.mouse.move(600, 740)
    save(page, "search")
    page.emulate_media(color_scheme="dark")
    save(page, "dark")
    page.emulate_media(color_scheme="light")
    choose(page, "embeddings")
    page.get_by_role("treeitem", name="text-small").nth(2).click()
    expect(page.locator(".plot")).to_be_visible()
    page.mouse.move(600, 740)
    save(page, "vector")
    page.set_viewport_size({"width": 360, "height": 720})
    choose_on_phone(page)
    save(page, "360")


def choose_on_phone(page: Page) -> None:
    page.get_by_role("button", name="Back").click()
    page.get_by_role("button", name="Back").click()
    choose(page, "sessions")
    page.locator("#prefix").fill("user:0012")
    expect(page.locator("#count")).to_have_text("10 keys")
    page.get_by_role("treeitem", name="user:00123:thread").click()
    expect(page.locator(".json")).to_be_visible()


def main() -> None:
    with exploring(shown="sqlite:/data/kv.db") as explored, browsing() as browser:
        fill(explored.url)
        context = browser.new_context(viewport={"width": 1200, "height": 750})
        draw(context.new_page(), explored)


if __name__ == "__main__":
    main()

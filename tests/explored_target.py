"""``lckv explore URL`` in a real Chromium: what its page does on any target, shared by the tests on each server."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from langchain_core.documents import Document
from playwright.sync_api import Browser, Page, expect

from explored import Explored
from explored_page import count, enter, keys_shown, open_collection, open_key, watched
from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv.embeddings.vectors import pack
from served import LCKV, STRICT, Server, environment

KEYSPACE = "of_explorer"


class Exploring(NamedTuple):
    explored: Explored
    token: str


@contextmanager
def exploring_url(url: str, *options: str) -> Iterator[Exploring]:
    """Run ``lckv explore`` on a target; at the end it must leave in good order."""
    command = [*LCKV, "explore", url, "--no-browser", "--keyspace", KEYSPACE, *options]
    strict = environment(**STRICT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=strict) as process:
        try:
            server = Server(process)
            assert process.stderr is not None
            yield Exploring(Explored(server.url, url), process.stderr.readline().split()[-1])
            ended = server.end()
            assert ended == (0, "", ""), ended
        finally:
            process.kill()


def check_page_on_target(browser: Browser, url: str) -> None:
    """Fill collections of every kind by stores; look at them on the page: lists, a prefix, paging, values."""
    fill(url)
    with exploring_url(url) as exploring, KVStore("numbers_of_it", url, keyspace=KEYSPACE) as store:
        for page in watched(browser, exploring.explored, permissions=["clipboard-read", "clipboard-write"]):
            enter(page, exploring.token)
            expect(
                page.get_by_role("navigation").get_by_role("button", name="numbers_of_it", exact=True)
            ).to_be_visible()
            open_collection(page, "numbers_of_it")
            _look_for_a_prefix(page)
            _page_while_others_write(page, store)
            _look_at_values(page)
            _copy_python(page, url)
            assert page.get_by_role("button", name=re.compile("Edit|Delete|Save")).count() == 0


def check_parts_on_target(url: str) -> None:
    """Ask for a listing part by part while others write: what is there all the time comes once."""
    where = {"keyspace": KEYSPACE, "collection": "parts_of_it"}
    stays = {f"k{number:05}" for number in range(0, 4_000, 2)}
    with exploring_url(url) as exploring, KVStore("parts_of_it", url, keyspace=KEYSPACE) as store:
        store.mset([(key, 1) for key in stays] + [(f"gone{number}", 1) for number in range(200)])

        def part(**fields: object) -> dict[str, Any]:
            headers = {"Content-Type": "application/json", "Token": exploring.token}
            sent = json.dumps({**where, "limit": 100, **fields}).encode()
            reply = exploring.explored.send("/explorer/keys", sent, **headers)
            assert reply.status == 200, reply.body
            answer: dict[str, Any] = reply.json()
            return answer

        some = part()
        keys: list[str] = some["keys"]
        while some["cursor"] is not None:
            store.mset([(f"k{number:05}", 1) for number in range(1, 4_000, 400)])
            store.mdelete([f"gone{number}" for number in range(200)])
            some = part(cursor=some["cursor"], number=some["number"] + 1)
            keys += some["keys"]
        assert len(keys) == len(set(keys))
        assert set(keys) >= stays


def check_removing_on_target(browser: Browser, url: str) -> None:
    """Edit one value and remove another on the page, which was told to allow it."""
    with KVStore("changed_of_it", url, keyspace=KEYSPACE) as store:
        store.mset([("a", {"n": 1}), ("b", 2), ("stale", 3)])
        with exploring_url(url, "--explorer-edits", "--collection", "changed_of_it") as exploring:
            for page in watched(browser, exploring.explored):
                enter(page, exploring.token)
                count(page).to_have_text("3 keys")
                open_key(page, "a")
                page.get_by_role("button", name="Edit", exact=True).click()
                page.get_by_label("The value as JSON").fill('{"n": 2}')
                page.get_by_role("button", name="Save").click()
                expect(page.locator(".json")).to_contain_text("n: 2")
                open_key(page, "stale")
                store.mset([("stale", "of somebody else")])
                page.get_by_role("button", name="Delete").click()
                page.get_by_role("button", name="Delete it").click()
                expect(page.locator("#problem-text")).to_contain_text("Somebody else")
                open_key(page, "b")
                page.get_by_role("button", name="Delete").click()
                page.get_by_role("button", name="Delete it").click()
                count(page).to_have_text("2 keys")
        assert store.mget(["a", "b", "stale"]) == [{"n": 2}, None, "of somebody else"]


def fill(url: str) -> None:
    """Write collections of each kind of value."""
    vector = pack([[0.5, -0.5, 0.25]])[0]
    assert isinstance(vector, bytes)
    with KVStore("numbers_of_it", url, keyspace=KEYSPACE, pre_delete_collection=True) as store:
        store.mset([(f"k{number:05}", number) for number in range(0, 8_000, 2)])
    with KVStore("kinds_of_it", url, keyspace=KEYSPACE) as store:
        store.mset([("json", {"n": 10**30, "list": [1.5, None, "ä"]}), ("odd", {"$a": 1}), ("text", "a text")])
        store.mset([("expires", 1)], ttl_s=3_600)
        store.namespace("ns").mset([("inside", [1])])
    with KVByteStore("raw_of_it", url, keyspace=KEYSPACE) as raw:
        raw.mset([("bytes", b"\x00\xff\xfe"), ("vector", vector)])
    with DocumentStore("documents_of_it", url, keyspace=KEYSPACE) as documents:
        documents.mset([("d", Document("The text.", metadata={"page": 7}))])


def _look_for_a_prefix(page: Page) -> None:
    page.locator("#prefix").fill("k0012")
    count(page).to_have_text("5 keys")
    assert sorted(keys_shown(page)) == [f"k{number:05}" for number in range(120, 130, 2)]
    page.locator("#prefix").fill("nothing")
    expect(page.locator("#empty")).to_have_text("No key starts with this.")
    page.locator("#prefix").fill("")


def _page_while_others_write(page: Page, store: KVStore) -> None:
    """Read on while keys come and go; those that are there all the time must be there, each once."""
    count(page).to_have_text(re.compile(r"[1-9].* so far"))
    store.mset([(f"k{number:05}", number) for number in range(1, 400, 2)])
    store.mdelete([f"k{number:05}" for number in range(7_000, 7_200, 2)])
    page.get_by_role("button", name="To the end").click()
    count(page).to_have_text(re.compile(r"^[\d,]+ keys$"))
    shown = int(page.locator("#count").inner_text().split()[0].replace(",", ""))
    # Of 4,000 a hundred went and 200 came: each of these is listed or not, by where the listing was.
    assert 3_900 <= shown <= 4_200
    page.get_by_role("tree").press("Home")
    page.locator("#prefix").fill("k")
    page.get_by_role("button", name="To the end").click()
    count(page).to_have_text("4,100 keys")
    page.locator("#prefix").fill("")


def _look_at_values(page: Page) -> None:
    open_collection(page, "kinds_of_it")
    count(page).to_have_text("5 keys")
    open_key(page, "json")
    expect(page.locator(".json")).to_contain_text("n: 1000000000000000000000000000000")
    open_key(page, "text")
    expect(page.locator("pre.text")).to_have_text("a text")
    open_key(page, "odd")
    expect(page.locator(".json")).to_contain_text("$a: 1")
    open_key(page, "expires")
    expect(page.locator("#value")).to_contain_text(re.compile("expires", re.IGNORECASE))
    page.get_by_role("treeitem", name="ns").click()
    expect(page.get_by_role("treeitem", name="inside")).to_be_visible()
    open_collection(page, "documents_of_it")
    open_key(page, "d")
    expect(page.locator(".prose")).to_have_text("The text.")
    open_collection(page, "raw_of_it")
    open_key(page, "vector")
    expect(page.get_by_role("img", name="3 numbers")).to_be_visible()
    open_key(page, "bytes")
    expect(page.locator("#value")).to_contain_text(re.compile(r"00 ff fe|AP/\+"))


def _copy_python(page: Page, url: str) -> None:
    """Run the line of Python that the page gives, with the password that it leaves out."""
    open_collection(page, "kinds_of_it")
    open_key(page, "json")
    page.get_by_role("button", name="Copy: Python").click()
    expect(page.locator("#told")).to_have_text(re.compile("^Copied"))
    line: str = page.evaluate("navigator.clipboard.readText()")
    login = re.search(r"//([^@]*)@", url)
    assert login is not None
    user, _, password = login[1].partition(":")
    assert f"{user}:***@" in line
    with ExitStack() as ends:

        def open_store(*arguments: str, **options: str) -> KVStore:
            return ends.enter_context(KVStore(*arguments, **options))  # type: ignore[arg-type]

        found = eval(line.replace("***", password), {"KVStore": open_store})
    assert found == {"n": 10**30, "list": [1.5, None, "ä"]}

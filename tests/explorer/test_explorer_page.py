"""Lists and values on the explorer's page, in a real Chromium."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from langchain_core.documents import Document
from playwright.sync_api import Browser, Page, Route, expect

from explored import TOKEN, Explored
from explored_page import count, enter, keys_shown, open_collection, open_key, watched
from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv.embeddings.vectors import pack

pytestmark = pytest.mark.slow


# -- lists ------------------------------------------------------------------------------------------------------------


def test_collections_and_keys_are_listed_with_their_number(page: Page, explored: Explored) -> None:
    with KVStore("first", explored.url) as first, KVStore("second", explored.url, keyspace="other") as second:
        first.mset([(f"k{number:02}", number) for number in range(20)])
        second.mset([("only", 1)])
    enter(page)

    expect(page.locator("#collections h2")).to_have_text(["default_keyspace", "other"])
    expect(page.locator("#collections li")).to_have_text(["first", "second"])
    open_collection(page, "first")
    count(page).to_have_text("20 keys")
    assert keys_shown(page) == [f"k{number:02}" for number in range(20)]


def test_a_prefix_finds_keys_and_enter_opens_the_one_of_that_name(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"{first}:{number:04}", number) for first in "ab" for number in range(1_000)])
    enter(page)
    expect(page.locator("#prefix")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("b:001")
    count(page).to_have_text("10 keys")
    assert keys_shown(page) == [f"b:{number:04}" for number in range(10, 20)]

    page.keyboard.type("7")
    page.keyboard.press("Enter")
    expect(page.locator("#value h2")).to_have_text("b:0017")
    page.locator("#prefix").fill("nothing")
    expect(page.locator("#empty")).to_have_text("No key starts with this.")


def test_a_prefix_that_is_typed_before_the_collections_are_there_is_kept(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"k{number:02}", number) for number in range(20)])
    held: list[Route] = []
    page.route(re.compile("/collections$"), lambda route: held.append(route))  # noqa: PLW0108 - it wants a function
    with page.expect_request(re.compile("/collections$")):
        enter(page)
    expect(page.locator("#prefix")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("k0")
    held[0].continue_()
    count(page).to_have_text("10 keys")
    expect(page.locator("#prefix")).to_have_value("k0")


def test_scrolling_and_to_the_end_read_on_and_count(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"k{number:05}", number) for number in range(12_000)])
    enter(page)
    count(page).to_have_text(re.compile(r"[1-9].* so far"))
    expect(page.get_by_role("treeitem").first).to_have_text("k00000")
    before = page.locator("#count").inner_text()
    page.get_by_role("tree").evaluate("(list) => (list.scrollTop = list.scrollHeight)")
    count(page).not_to_have_text(before)
    page.get_by_role("button", name="To the end").click()
    count(page).to_have_text("12,000 keys")
    page.get_by_role("tree").press("End")
    expect(page.get_by_role("treeitem", name="k11999")).to_be_visible()
    assert page.locator(".row").count() < 100  # only those that are to be seen


def test_paging_does_not_drift_while_others_write(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"k{number:05}", number) for number in range(0, 8_000, 2)])
        enter(page)
        count(page).to_have_text(re.compile(r"[1-9].* so far"))
        store.mset([(f"k{number:05}", number) for number in range(1, 400, 2)])
        store.mdelete(["k00000", "k00002"])
        store.mset([("k09999", 1)])
        page.get_by_role("button", name="To the end").click()
        count(page).to_have_text("4,001 keys")  # each once, and the new one behind


def test_a_listing_goes_on_where_its_scan_was_given_up(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"k{number:05}", number) for number in range(8_000)])
    enter(page)
    count(page).to_have_text(re.compile(r"[1-9].* so far"))
    for _ in range(20):  # of others, who take its place
        explored.ask("keys", limit=1)
    page.get_by_role("button", name="To the end").click()
    count(page).to_have_text("8,000 keys")


def test_a_separator_makes_a_tree_and_namespaces_are_one(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"{first}/{second}/{leaf}", 1) for first in "ab" for second in "cd" for leaf in "ef"])
        store.namespace("users", "ada").mset([("likes", ["tea"])])
    enter(page)
    count(page).to_have_text("9 keys")
    assert keys_shown(page) == [f"{first}/{second}/{leaf}" for first in "ab" for second in "cd" for leaf in "ef"]
    expect(page.get_by_role("treeitem", name="users")).to_have_attribute("aria-expanded", "false")

    page.get_by_role("button", name="a/b", exact=True).click()
    expect(page.locator(".row .label")).to_have_text(["users", "a/", "b/"])
    page.get_by_role("treeitem", name="a/").click()
    page.get_by_role("treeitem", name="c/").click()
    expect(page.locator(".row .label")).to_have_text(["users", "a/", "c/", "e", "f", "d/", "b/"])
    page.get_by_role("treeitem", name="users").click()
    page.get_by_role("treeitem", name="ada").click()
    page.get_by_role("treeitem", name="likes").click()
    expect(page.locator("#value .labels bdi")).to_have_text(["users", "ada"])
    expect(page.locator("#value h2")).to_have_text("likes")
    page.get_by_label("Another separator").fill("c/")
    expect(page.get_by_role("treeitem", name="a/c/")).to_be_visible()


# -- values -----------------------------------------------------------------------------------------------------------


def test_json_is_a_tree_with_its_numbers_as_they_are(page: Page, explored: Explored) -> None:
    value = {"big": 123456789012345678901234567890, "small": 1e-7, "list": [1, {"deep": {"deeper": [True, None]}}]}
    with KVStore("kv", explored.url, ttl_s=3 * 3_600) as store:
        store.mset([("a", value)])
    enter(page)
    open_key(page, "a")

    tree = page.locator("#value .json")
    expect(tree).to_contain_text("big: 123456789012345678901234567890")
    expect(tree).not_to_contain_text("deeper: ")
    tree.locator("summary", has_text="1: ").click()
    tree.locator("summary", has_text="deep: ").click()
    expect(tree).to_contain_text("deeper: ")
    expect(page.locator(".chips")).to_have_text(re.compile(r"JSON.*kind: JSON.*bytes.*expires in 2 hours"))
    page.get_by_role("tab", name="Text").click()
    shown = page.locator("#value pre").inner_text()
    assert json.loads(shown) == value
    assert '  "big": 123456789012345678901234567890,\n' in shown


def test_a_browser_that_would_round_numbers_shows_them_as_text(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("long", {"n": 12345678901234567890}), ("short", {"n": 1})])
    page.add_init_script("const parse = JSON.parse; JSON.parse = (text, f) => parse(text, f && ((k, v) => f(k, v)));")
    page.reload()
    enter(page)
    open_key(page, "long")
    expect(page.locator("#value pre")).to_have_text('{"n":12345678901234567890}')
    open_key(page, "short")
    expect(page.locator("#value .json")).to_contain_text("n: 1")


@pytest.mark.parametrize(
    "value",
    [{}, [], [[]], [{}], {"a": {}}, {"a": []}, [[], {}], 1, "", None, True, [{"a": [[]]}], {"a": '",:{}[]\\"'}],
    ids=json.dumps,
)
def test_the_text_of_json_is_the_value(page: Page, explored: Explored, value: Any) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a", [value, value])])
    enter(page)
    open_key(page, "a")
    page.get_by_role("tab", name="Text").click()
    assert json.loads(page.locator("#value pre").inner_text()) == [value, value]


def test_documents_text_vectors_and_bytes_are_shown_as_such(page: Page, explored: Explored) -> None:
    with DocumentStore("documents", explored.url) as documents:
        documents.mset([("d", Document("The text.\n\nOf two parts.", metadata={"page": 7}, id="the id"))])
    with KVStore("documents", explored.url) as plain:
        plain.mset([("decodes", "AAECAwQFBgc=")])
    vector = [math.sin(at / 20) for at in range(600)]
    with KVByteStore("raw", explored.url) as raw:
        packed = pack([vector])[0]
        assert isinstance(packed, bytes)
        raw.mset([("bytes", bytes(range(256))), ("text", "Grüße\n".encode()), ("vector", packed)])
    enter(page)
    open_collection(page, "documents")
    open_key(page, "d")
    expect(page.locator(".prose")).to_have_text("The text.\n\nOf two parts.")
    expect(page.locator("#value .json").first).to_contain_text("page: 7")
    expect(page.locator("#value .json").last).to_contain_text("the id")

    open_collection(page, "raw")
    open_key(page, "bytes")
    expect(page.locator(".hex")).to_contain_text("000010  10 11 12 13 14 15 16 17  18 19 1a 1b 1c 1d 1e 1f  ········")
    expect(page.locator(".hex")).to_contain_text("40 41 42 43 44 45 46 47  48 49 4a 4b 4c 4d 4e 4f  @ABCDEFG")
    open_key(page, "text")
    expect(page.locator("pre.text")).to_have_text("Grüße\n")
    open_collection(page, "documents")  # bytes where documents are kept: text, which can be decoded
    open_key(page, "decodes")
    expect(page.locator("pre.text")).to_have_text("AAECAwQFBgc=")
    page.get_by_role("tab", name="Decoded from base64").click()
    expect(page.locator(".hex")).to_contain_text("000000  00 01 02 03 04 05 06 07")
    open_collection(page, "raw")
    open_key(page, "vector")
    expect(page.get_by_role("img", name="600 numbers")).to_be_visible()
    assert page.locator(".plot .bars").get_attribute("d").count("M") == 200  # type: ignore[union-attr]
    expect(page.locator(".figures")).to_contain_text("kept asfloat64")
    page.get_by_role("tab", name="Numbers").click()
    assert len(page.locator("#value pre").inner_text().splitlines()) == 600


def test_a_damaged_value_says_why(page: Page, explored: Explored) -> None:
    headers = {"Content-Type": "application/json", "Token": TOKEN}
    with KVStore("kv", explored.url) as store:
        store.mset([("a", 1)])
    insert = b'{"insertOne":{"document":{"_id":"bad","value":"{","encoding":"json"}}}'
    assert explored.send("/v1/default_keyspace/kv", insert, **headers).status == 200
    enter(page)
    open_key(page, "bad")

    expect(page.locator("#value .problem")).to_contain_text("not valid JSON")
    assert page.get_by_role("button", name="Download").count() == 0


def test_a_large_value_is_cut_and_downloaded_whole(page: Page, explored: Explored) -> None:
    value = {"text": "0123456789" * 20_000}
    with KVStore("kv", explored.url) as store:
        store.mset([("a/large one", value)])
    enter(page)
    open_key(page, "a/large one")

    expect(page.locator(".note")).to_contain_text("The first 64 KB of 195 KiB")
    assert len(page.locator("pre").inner_text()) == 64 * 1024
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download").click()
    assert caught.value.suggested_filename == "a_large_one.json"
    assert json.loads(caught.value.path().read_bytes()) == value


def test_what_is_copied_is_exact_and_the_python_line_reads_the_value(browser: Browser, explored: Explored) -> None:
    key = 'it\'s a "key"\n\\ \u202e'
    with KVStore("kv", explored.url) as store:
        store.mset([("plain", 1)])
        store.namespace("ns").mset([(key, {"a": 1})])
    for page in watched(browser, explored, permissions=["clipboard-read", "clipboard-write"]):
        enter(page)
        page.get_by_role("treeitem", name="ns").click()
        page.get_by_role("treeitem", name="it's").click()

        def copied(name: str, page: Page = page) -> str:
            page.get_by_role("button", name=f"Copy: {name}").click()
            expect(page.locator("#told")).to_have_text(re.compile("^Copied"))
            text: str = page.evaluate("navigator.clipboard.readText()")
            page.evaluate("document.getElementById('told').textContent = ''")
            return text

        assert copied("Key") == f"\x1fns\x1e{key}"
        assert json.loads(copied("Value")) == {"a": 1}
        line = copied("Python")
        assert line.startswith(f'KVStore("kv", "{explored.base}").namespace("ns").mget([')
        with_token = line.replace(f'"{explored.base}"', f'"{explored.base}", token={TOKEN!r}')
        assert eval(with_token, {"KVStore": KVStore}) == {"a": 1}
        link = copied("Link")
        page.goto("about:blank")
        page.goto(link)
        enter(page)
        expect(page.locator("#value h2")).to_contain_text("it's a")


def test_a_hundred_thousand_keys_are_browsed(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([(f"user:{number:06}", number) for number in range(100_000)])
    enter(page)
    expect(page.get_by_role("treeitem").first).to_have_text("user:000000")
    assert page.locator("#count").inner_text().endswith("so far")  # long before all are there
    page.get_by_role("button", name="To the end").click()
    count(page).to_have_text("100,000 keys")
    page.get_by_role("tree").press("End")
    expect(page.get_by_role("treeitem", name="user:099999")).to_be_visible()
    assert page.locator(".row").count() < 100

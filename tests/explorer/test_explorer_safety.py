"""What the page keeps to itself, in a real Chromium: hostile keys and values, the token, pages elsewhere, changes."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from playwright.sync_api import Browser, Page, expect

from chromium import REFUSALS
from explored import TOKEN, Explored
from explored_page import count, enter, open_collection, open_key, watched
from langchain_kv import DocumentStore, KVStore
from langchain_kv.backends.base import Backend, Kind, Record
from langchain_kv.places.arguments import resolve
from langchain_kv.places.schemes import parse_url

pytestmark = pytest.mark.slow

HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    '"><svg onload=window.hacked=1>',
    "javascript:window.hacked=1",
    "</title><base href=https://elsewhere.example/>",
    "{{constructor.constructor('window.hacked=1')()}}",
    "__proto__",
    "constructor",
    "\u202eesrever",
    "line\nend\ttab\x00null",
    "\x1f\x1e",
    "\x1f<b>a</b>\x1ek",
    "&lt;b&gt;&#x27;",
]


HIDING = [0xAD, 0x34F, 0x61C, 0x115F, 0x180E, 0x200B, 0x202E, 0x206A, 0x206F, 0x2800, 0x3164, 0xD800, 0xFE0F, 0xFFA0]
HIDING += [0xFEFF, 0xFFF9, 0xE0001, 0xE0041]


def opened(url: str) -> Backend:
    """Return a backend of the collection kv, which takes what no store would write."""
    place = parse_url(url)
    return place.open(resolve("kv", place, token=None, keyspace=None, component=None))


# -- what others wrote ------------------------------------------------------------------------------------------------


def test_hostile_keys_and_values_are_text_and_nothing_else(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store, DocumentStore("documents", explored.url) as documents:
        store.mset([(key, {key: HOSTILE}) for key in HOSTILE])
        documents.mset([(key, Document(key, metadata={key: key}, id=key)) for key in HOSTILE])
        store.mset([(f"text {number}", text) for number, text in enumerate(HOSTILE)])
    enter(page)
    for collection in ("kv", "documents"):
        open_collection(page, collection)
        for separator in ("List", "a/b", "a:b", "a.b"):
            page.get_by_role("button", name=separator, exact=True).click()
        page.get_by_role("button", name="List", exact=True).click()
        for key in HOSTILE:
            page.evaluate(
                "(fields) => (location.hash = new URLSearchParams(fields))",
                {"keyspace": "default_keyspace", "collection": collection, "key": key},
            )
            expect(page.locator("#value .chips")).to_be_visible()
            expect(page.locator("#value")).not_to_have_class(re.compile("waiting"))
            names = page.evaluate("[...document.querySelectorAll('#app *')].map((each) => each.localName)")
            assert not set(names) & {"img", "script", "base", "iframe", "b", "object", "embed", "a", "style", "link"}
            assert page.locator("#app [onerror], #app [onload], #app [href], #app [src]").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("Object.keys(Object.prototype).length") == 0


def test_the_policy_stops_what_text_could_not(browser: Browser, explored: Explored) -> None:
    page = browser.new_page()
    page.add_init_script(REFUSALS)
    page.goto(explored.base)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>')")
    page.wait_for_function("window.refused.length >= 1")
    assert page.evaluate("window.hacked") is None
    page.close()


@pytest.mark.parametrize("code", HIDING, ids=hex)
def test_characters_that_hide_are_spelt_out_in_keys(page: Page, code: int) -> None:
    told = page.evaluate(
        "async (code) => (await import('/explorer/dom.js')).visible(`a${String.fromCodePoint(code)}b`)", code
    )

    assert told == f"a\u2039U+{code:04X}\u203ab"
    ordinary = "\u00e4 \u4e2d \U0001f600 e\u0301 \u05d0 \u0e33 \u00a0-_/:"
    assert page.evaluate("async (text) => (await import('/explorer/dom.js')).visible(text)", ordinary) == ordinary


@pytest.mark.parametrize("begins", ["/", "\x1fa", ""], ids=["folders", "namespaces", "both"])
def test_a_key_that_is_all_separators_is_a_row_like_others(page: Page, explored: Explored, begins: str) -> None:
    key = {"": "\x1fa" * 2_000 + "\x1e" + "/" * 4_000, "/": "/" * 8_000, "\x1fa": "\x1fa" * 3_900 + "\x1ek"}[begins]
    with KVStore("kv", explored.url) as store:
        opened(explored.url).put_many([Record(key, b"1"), Record("a/b", b"2")])
        assert store.mget(["a/b"]) == [2]
    enter(page)
    count(page).to_have_text("2 keys")
    page.get_by_role("button", name="a/b", exact=True).click()
    page.evaluate(
        "(fields) => (location.hash = new URLSearchParams(fields))",
        {"keyspace": "default_keyspace", "collection": "kv", "key": key},
    )
    expect(page.locator("#value .json")).to_have_text("1")
    seconds = page.evaluate(
        """async (key) => {
          const tree = new (await import("/explorer/tree.js")).Tree("/");
          const began = performance.now();
          for (let at = 0; at < 50; at += 1) tree.add(key + at);
          tree.reveal(key + 1);
          return [tree.rows().length, (performance.now() - began) / 1000];
        }""",
        key,
    )
    assert seconds[0] == 150
    assert seconds[1] < 20  # it took a second for each


def test_a_value_that_cannot_be_drawn_leaves_no_other_in_its_place(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("first", "a text"), ("second", 2), ("third", 3)])
    opened(explored.url).put_many([Record("late", b"1", Kind.JSON, 9_000_000_000_000_000)])
    enter(page)
    open_key(page, "first")
    open_key(page, "late")  # later than a Date of the browser's can be
    expect(page.locator("#value .chips")).to_contain_text("expires in")
    broken = json.dumps({"shape": "vector", "kind": "json", "size_bytes": 1, "expires_at_ms": None, "version": ""})
    page.route("**/explorer/value", lambda route: route.fulfill(body=broken, content_type="application/json"))
    page.get_by_role("treeitem", name="second", exact=True).click()
    expect(page.locator("#problem-text")).to_contain_text("This value cannot be shown")
    expect(page.locator("#value")).to_be_empty()
    page.unroute("**/explorer/value")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#value .json")).to_have_text("2")


# -- the token --------------------------------------------------------------------------------------------------------


def test_a_wrong_token_is_told_and_shows_nothing(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a", 1)])
    enter(page, "another")

    expect(page.get_by_role("alert").first).to_have_text("This is not the token of this server.")
    expect(page.locator("#app")).to_be_hidden()
    assert page.locator("#collections button").count() == 0
    enter(page)
    count(page).to_have_text("1 key")


def test_the_token_is_in_memory_only(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a", 1)])
    enter(page)
    open_key(page, "a")
    places = "localStorage, sessionStorage, document.cookie, location.href, history.state"
    kept = page.evaluate(f"JSON.stringify([{places}])")

    assert TOKEN not in kept
    assert TOKEN not in page.content()
    assert page.evaluate("document.getElementById('token').value") == ""
    page.reload()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#value h2")).to_have_text("a")  # the fragment says where one was
    page.get_by_role("button", name="Forget the token").click()
    expect(page.locator("#app")).to_be_hidden()
    assert page.locator("#collections button, .row, #value h2").count() == 0


def test_a_token_in_the_fragment_is_taken_and_removed(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a", 1)])
    page.goto("about:blank")
    page.goto(f"{explored.base}/#token={TOKEN}")

    count(page).to_have_text("1 key")
    assert TOKEN not in page.url


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A page of another origin."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


ATTEMPTS = """async ([base, token, body]) => {
  const tried = async (options) => {
    try {
      const reply = await fetch(`${base}/explorer/delete`, { method: "POST", body, ...options });
      return `${reply.type} ${reply.status} ${await reply.text()}`;
    } catch (error) {
      return error.name;
    }
  };
  const json = { "Content-Type": "application/json" };
  return [
    await tried({}),
    await tried({ headers: json }),
    await tried({ headers: { Token: token } }),
    await tried({ headers: { ...json, Token: token } }),
    await tried({ mode: "no-cors" }),
    await tried({ mode: "no-cors", headers: { ...json, Token: token } }),
  ];
}"""
"""What a script elsewhere can try to remove a value with; of each what it learns."""

FRAME = "(base) => document.body.append(Object.assign(document.createElement('iframe'), { src: base }))"


def test_a_page_elsewhere_can_do_nothing_even_if_it_knew_the_token(
    browser: Browser, editable: Explored, elsewhere: str
) -> None:
    with KVStore("kv", editable.url) as store:
        store.mset([("a", 1)])
        version = editable.ask("value", key="a").json()["version"]
        fields = {"keyspace": "default_keyspace", "collection": "kv", "key": "a", "version": version}
        page = browser.new_page()
        page.goto(elsewhere)
        answers = page.evaluate(ATTEMPTS, [editable.base, TOKEN, json.dumps(fields)])

        # Nothing is let through, or it is sent without the token and the answer is not shown.
        assert answers[:4] == ["TypeError"] * 4
        assert {answer.strip() for answer in answers[4:]} <= {"opaque 0", "TypeError"}
        assert store.mget(["a"]) == [1]
        page.close()


def test_no_other_page_can_frame_it(browser: Browser, explored: Explored, elsewhere: str) -> None:
    page = browser.new_page()
    page.goto(elsewhere)
    with page.expect_event("console", lambda message: "frame-ancestors" in message.text):
        page.evaluate(FRAME, explored.base)
    assert page.frame_locator("iframe").locator("#token").count() == 0
    page.close()


# -- changes ----------------------------------------------------------------------------------------------------------


def test_nothing_can_be_changed_by_default(page: Page, explored: Explored) -> None:
    with KVStore("kv", explored.url) as store:
        store.mset([("a", {"b": 1})])
    enter(page)
    open_key(page, "a")

    expect(page.locator("#mode")).to_have_text("read-only")
    assert page.get_by_role("button", name=re.compile("Edit|Delete|Save")).count() == 0


def test_a_value_is_edited_and_removed_where_the_server_allows_it(browser: Browser, editable: Explored) -> None:
    with KVStore("kv", editable.url) as store:
        store.mset([("a", {"n": 10**30}), ("b", 2)])
        for page in watched(browser, editable):
            enter(page)
            open_key(page, "a")
            page.get_by_role("button", name="Edit").click()
            editor = page.get_by_label("The value as JSON")
            assert json.loads(editor.input_value()) == {"n": 10**30}
            editor.fill("{no json")
            page.get_by_role("button", name="Save").click()
            expect(page.locator(".content .problem")).to_contain_text("This is no JSON")
            editor.fill('{"n": 1000000000000000000000000000001}')
            page.get_by_role("button", name="Save").click()
            expect(page.locator(".json")).to_contain_text("n: 1000000000000000000000000000001")
            assert store.mget(["a"]) == [{"n": 10**30 + 1}]

            store.mset([("a", "of somebody else")])
            page.get_by_role("button", name="Delete").click()
            page.get_by_role("button", name="Delete it").click()
            expect(page.locator("#problem-text")).to_contain_text("Somebody else")
            open_key(page, "b")
            page.get_by_role("button", name="Delete").click()
            page.get_by_role("button", name="Keep").click()
            page.get_by_role("button", name="Delete").click()
            page.get_by_role("button", name="Delete it").click()
            count(page).to_have_text("1 key")
            assert store.mget(["a", "b"]) == ["of somebody else", None]

"""The explorer without a browser: who is answered, what a listing and a value are, and that nothing holds it up."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Generator, Iterator
from functools import partial
from importlib import resources
from typing import Any

import pytest

from explored import TOKEN, Explored, exploring_target
from langchain_kv import KVByteStore, KVStore
from langchain_kv.backends.base import Page
from langchain_kv.backends.wrappers import Wrapper
from langchain_kv.engines.base import CollectionName
from langchain_kv.explorer.app import POLICY
from langchain_kv.explorer.scans import SCANS_MAX, Scans
from langchain_kv.explorer.targets import Backends, Target
from langchain_kv.places.arguments import resolve
from langchain_kv.places.schemes import parse_url

ROUTES = ("about", "collections", "keys", "value", "download", "put", "delete")
READING = ("about", "collections", "keys", "value", "download")
FILES = sorted(path.name for path in resources.files("langchain_kv.explorer").joinpath("static").iterdir())
PATHS = ["/", *(f"/explorer/{name}" for name in FILES if name != "index.html")]
SECRET_KEY = "a-key-that-only-the-token-shows"
JSON = {"Content-Type": "application/json"}


def body(**fields: Any) -> bytes:
    return json.dumps({"keyspace": "default_keyspace", "collection": "kv", **fields}).encode()


@pytest.fixture
def store(explored: Explored) -> Iterator[KVStore]:
    with KVStore("kv", explored.url) as store:
        store.mset([(SECRET_KEY, {"secret": SECRET_KEY})])
        yield store


# -- who is answered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("token", [{}, {"Token": ""}, {"Token": "another"}, {"Token": TOKEN[:-1]}], ids=repr)
def test_nothing_is_answered_without_the_token(
    explored: Explored, store: KVStore, route: str, token: dict[str, str]
) -> None:
    reply = explored.send(f"/explorer/{route}", body(key=SECRET_KEY, version=""), **JSON, **token)

    assert reply.status == 401
    assert SECRET_KEY.encode() not in reply.body
    assert explored.url.encode() not in reply.body


@pytest.mark.parametrize("path", PATHS)
def test_the_page_itself_is_there_for_everybody_and_holds_no_data(
    explored: Explored, store: KVStore, path: str
) -> None:
    reply = explored.send(path, method="GET")

    assert reply.status == 200
    assert SECRET_KEY.encode() not in reply.body
    assert explored.url.encode() not in reply.body
    assert explored.send(path, b"", **JSON, Token=TOKEN).status == 405


@pytest.mark.parametrize("path", [*PATHS, *(f"/explorer/{route}" for route in ROUTES)])
@pytest.mark.parametrize("token", [{}, {"Token": TOKEN}], ids=["without", "with the token"])
def test_every_answer_has_the_policy_and_lets_no_other_page_read_it(
    explored: Explored, path: str, token: dict[str, str]
) -> None:
    elsewhere = {"Origin": "https://elsewhere.example", **token}
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        reply = explored.send(
            path, body(key="a", version="") if method == "POST" else None, method, **elsewhere, **JSON
        )

        assert reply.headers["content-security-policy"] == POLICY
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert [name for name in reply.headers if name.startswith("access-control")] == []


def test_the_policy_is_as_strict_as_the_documents_say() -> None:
    assert POLICY.split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_form_or_a_link_elsewhere_can_send_is_refused(explored: Explored, route: str) -> None:
    path = f"/explorer/{route}"
    sent = body(key="a", version="")

    assert explored.send(path, method="GET", Token=TOKEN).status == 405
    assert explored.send(path, method="OPTIONS", Token=TOKEN).status == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        assert explored.send(path, sent, **{"Content-Type": kind}, Token=TOKEN).status == 415
    assert explored.send(f"{path}?token={TOKEN}", sent, **JSON).status == 401


def test_the_page_takes_nothing_from_elsewhere_and_runs_no_text_of_its_own(explored: Explored) -> None:
    page = explored.send("/", method="GET").body.decode()

    assert re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page) == ["explorer/style.css", "explorer/main.js"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page) == []
    for name in FILES:
        text = explored.send("/" if name == "index.html" else f"/explorer/{name}", method="GET").body.decode()
        assert set(re.findall(r"https?://[^'\"\s)]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(", text) == [], name
        assert re.findall(r"localStorage|sessionStorage|document\.cookie|indexedDB", text) == [], name


@pytest.mark.parametrize(
    "path", ["/explorer", "/explorer/", "/explorer/nothing", "/explorer/../kv", "/explorer/index.html"]
)
def test_what_is_no_route_is_not_there(explored: Explored, path: str) -> None:
    assert explored.send(f"/explorer{path}", body(), **JSON, Token=TOKEN).status == 404


def test_the_data_api_is_answered_beside_it(explored: Explored, store: KVStore) -> None:
    reply = explored.send("/v1/default_keyspace/kv", b'{"findOne":{}}', **JSON, Token=TOKEN)

    assert reply.json()["data"]["document"]["_id"] == SECRET_KEY
    assert explored.send("/stargate/health", method="GET").status == 200


@pytest.mark.parametrize(
    "sent", [b"", b"[]", b"{", b'{"keyspace":1,"collection":"kv"}', b"\xff", b'{"keyspace":"a"}'], ids=repr
)
def test_a_request_that_makes_no_sense_is_told_so(explored: Explored, sent: bytes) -> None:
    reply = explored.send("/explorer/keys", sent, **JSON, Token=TOKEN)

    assert (reply.status, reply.json()["error"]["code"]) == (400, "BAD_REQUEST")


# -- lists ------------------------------------------------------------------------------------------------------------


def listed(explored: Explored, limit: int = 500, **fields: Any) -> list[list[str]]:
    """Return the keys of all parts of a listing."""
    part = explored.ask("keys", limit=limit, **fields).json()
    parts = [part["keys"]]
    while part["cursor"] is not None:
        part = explored.ask("keys", cursor=part["cursor"], number=part["number"] + 1, limit=limit, **fields).json()
        parts.append(part["keys"])
    return parts


def test_collections_are_listed_with_their_keyspaces(explored: Explored, store: KVStore) -> None:
    with KVStore("other", explored.url, keyspace="second") as other:
        other.mset([("a", 1)])

    found = explored.ask("collections").json()["collections"]

    assert found == [{"keyspace": "default_keyspace", "name": "kv"}, {"keyspace": "second", "name": "other"}]


def test_keys_come_in_parts_by_prefix_each_once(explored: Explored, store: KVStore) -> None:
    store.mset([(f"{first}/{number:04}", number) for first in "ab" for number in range(2_300)])

    parts = listed(explored, limit=500, prefix="b/")

    assert len(parts) > 2
    assert [key for part in parts for key in part] == [f"b/{number:04}" for number in range(2_300)]


def test_a_listing_neither_repeats_nor_skips_keys_while_others_write(explored: Explored, store: KVStore) -> None:
    stays = [f"k{number:04}" for number in range(0, 6_000, 2)]
    store.mset([(key, 1) for key in stays])
    part = explored.ask("keys", prefix="k", limit=500).json()
    found = list(part["keys"])
    while part["cursor"] is not None:
        store.mset([(f"k{number:04}", 2) for number in range(1, 2_000, 2)])  # before and behind where it stands
        store.mdelete([f"k{number:04}" for number in range(1, 1_000, 2)])
        part = explored.ask("keys", cursor=part["cursor"], number=part["number"] + 1, limit=500).json()
        found += part["keys"]

    assert len(found) == len(set(found))
    assert [key for key in found if int(key[1:]) % 2 == 0] == stays


def test_a_part_whose_answer_was_lost_is_the_same_again(explored: Explored, store: KVStore) -> None:
    store.mset([(f"k{number:04}", number) for number in range(3_000)])
    first = explored.ask("keys", prefix="k", limit=500).json()
    again = {"cursor": first["cursor"], "number": first["number"] + 1, "limit": 500}

    assert explored.ask("keys", **again).json() == explored.ask("keys", **again).json()


def test_a_scan_that_was_given_up_is_told_so(explored: Explored, store: KVStore) -> None:
    store.mset([(f"k{number:04}", number) for number in range(3_000)])
    cursors = [explored.ask("keys", limit=500).json()["cursor"] for _ in range(SCANS_MAX + 1)]

    replies = [explored.ask("keys", cursor=cursor, number=2, limit=500) for cursor in cursors]

    assert [reply.status for reply in replies] == [410] + [200] * SCANS_MAX
    assert explored.ask("keys", cursor=cursors[1], number=9).json()["error"]["code"] == "SCAN_GONE"


def test_what_has_expired_is_neither_listed_nor_shown(explored: Explored, store: KVStore) -> None:
    store.mset([("gone", 1)], ttl_s=0.001)
    deadline = time.monotonic() + 10
    while store.mget(["gone"]) != [None]:
        assert time.monotonic() < deadline

    assert listed(explored) == [[SECRET_KEY]]
    assert explored.ask("value", key="gone").status == 404


def test_a_collection_that_does_not_exist_is_an_error_and_is_not_made(explored: Explored) -> None:
    for route in ("keys", "value", "download"):
        reply = explored.ask(route, collection="missing", key="a")
        assert (reply.status, reply.json()["error"]["code"]) == (404, "UnknownCollectionError")
    assert explored.ask("collections").json() == {"collections": []}


# -- nothing holds it up ----------------------------------------------------------------------------------------------


class Held(Wrapper):
    """A backend whose scans wait until they may go on."""

    def __init__(self, backend: Any, begun: threading.Event, may_go_on: threading.Event) -> None:
        super().__init__(backend)
        self.begun = begun
        self.may_go_on = may_go_on

    holds_after = 0
    is_closed = False

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        for number, key in enumerate("abc"):
            if number == self.holds_after:
                self.begun.set()
                assert self.may_go_on.wait(60)
            yield [(key, None)]

    def close(self) -> None:
        self.is_closed = True
        super().close()


def opened(url: str) -> Any:
    """Return a backend of the collection kv."""
    place = parse_url(url)
    return place.open(resolve("kv", place, token=None, keyspace=None, component=None))


def test_a_scan_that_takes_long_holds_nobody_up() -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    with KVStore("kv", "memory:explored-slowly") as store:
        store.mset([("a", 1)])

        def open_backend(_: CollectionName) -> Held:
            return Held(opened("memory:explored-slowly"), begun, may_go_on)

        target = Target(
            "slow", None, "default_keyspace", lambda: [CollectionName("default_keyspace", "kv")], open_backend
        )
        with exploring_target(target) as explored:
            replies: list[Any] = []
            waiting = threading.Thread(target=lambda: replies.append(explored.ask("keys").json()))
            waiting.start()
            assert begun.wait(60)
            assert explored.ask("value", key="a").json()["text"] == "1"
            assert explored.send("/", method="GET").status == 200
            assert replies == []
            may_go_on.set()
            waiting.join(60)
            assert replies[0]["keys"] == ["a", "b", "c"]


def test_the_end_of_the_server_waits_for_no_scan() -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    parts: list[Any] = []
    with KVStore("kv", "memory:explored-ending") as store:
        store.mset([(f"k{number}", 1) for number in range(3)])
        held = Held(opened("memory:explored-ending"), begun, may_go_on)
        held.holds_after = 1
        backends = Backends(lambda _: held)
        scans = Scans(backends)
        first = scans.begin(CollectionName("default_keyspace", "kv"), "", 1)
        assert first.cursor is not None
        cursor = first.cursor
        waiting = threading.Thread(target=lambda: parts.append(scans.go_on(cursor, 2, 1)))
        waiting.start()
        assert begun.wait(60)
        scans.close()  # returns, although the scan is held
        backends.close()
        assert not held.is_closed
        may_go_on.set()
        waiting.join(60)
        assert parts[0].keys == ["b"]
        assert held.is_closed


# -- changes ----------------------------------------------------------------------------------------------------------


def test_changes_are_refused_unless_the_server_allows_them(explored: Explored, store: KVStore) -> None:
    shown = explored.ask("value", key=SECRET_KEY).json()
    for route in ("put", "delete"):
        reply = explored.ask(route, key=SECRET_KEY, version=shown["version"], text="2")
        assert (reply.status, reply.json()["error"]["code"]) == (403, "READ_ONLY")

    assert explored.ask("about").json()["edits"] is False
    assert store.mget([SECRET_KEY]) == [{"secret": SECRET_KEY}]


def test_a_value_is_replaced_and_removed_where_the_server_allows_it(editable: Explored) -> None:
    with KVStore("kv", editable.url) as store:
        store.mset([("a", {"old": 1})], ttl_s=3_600)
        before = editable.ask("value", key="a").json()

        after = editable.ask("put", key="a", version=before["version"], text='{"n": 123456789012345678901234567890}')

        assert store.mget(["a"]) == [{"n": 123456789012345678901234567890}]
        assert after.json()["expires_at_ms"] == before["expires_at_ms"]
        assert after.json()["version"] != before["version"]
        assert editable.ask("delete", key="a", version=after.json()["version"]).json() == {"deleted": True}
        assert store.mget(["a"]) == [None]


def test_a_change_of_what_was_changed_meanwhile_is_refused(editable: Explored) -> None:
    with KVStore("kv", editable.url) as store:
        store.mset([("a", 1)])
        version = editable.ask("value", key="a").json()["version"]
        store.mset([("a", 2)])
        for route in ("put", "delete"):
            reply = editable.ask(route, key="a", version=version, text="3")
            assert (reply.status, reply.json()["error"]["code"]) == (409, "CHANGED")
        assert store.mget(["a"]) == [2]


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 100_000, '"\\ud800', "nul"], ids=lambda text: text[:9])
def test_text_that_is_no_json_changes_nothing(editable: Explored, text: str) -> None:
    with KVStore("kv", editable.url) as store:
        store.mset([("a", 1)])
        version = editable.ask("value", key="a").json()["version"]

        assert editable.ask("put", key="a", version=version, text=text).status == 400
        assert store.mget(["a"]) == [1]


def test_numbers_that_a_float_would_round_are_shown_and_not_rounded_by_a_change(editable: Explored) -> None:
    with KVStore("kv", editable.url) as store:
        store.mset([("a", 1)])
        sent = b'{"insertOne":{"document":{"_id":"p","value":{"n":1.00000000000000000001,"f":[0.1,1e-7],"s":"x"}}}}'
        editable.send("/v1/default_keyspace/kv", sent, **JSON, Token=TOKEN)
        before = editable.ask("value", key="p").json()
        put = partial(editable.ask, "put", key="p", version=before["version"])

        assert before["text"].startswith('{"n":1.00000000000000000001,"f":[0.1,1')
        refused = put(text=before["text"].replace("x", "y"))
        assert (refused.status, refused.json()["error"]["code"]) == (400, "NOT_EXACT")
        assert "1.00000000000000000001" in refused.json()["error"]["message"]
        change = b'{"updateOne":{"filter":{"_id":"p"},"update":{"$set":{"value.n":1.00000000000000000002}}}}'
        editable.send("/v1/default_keyspace/kv", change, **JSON, Token=TOKEN)
        assert put(text='{"n":1}').json()["error"]["code"] == "CHANGED"
        assert editable.ask("put", key="a", version="", text="1e999").json()["error"]["code"] == "NOT_EXACT"


def test_bytes_are_not_edited_as_json(editable: Explored) -> None:
    with KVByteStore("kv", editable.url) as store:
        store.mset([("a", b"1")])
        version = editable.ask("value", key="a").json()["version"]

        assert editable.ask("put", key="a", version=version, text="2").json()["error"]["code"] == "NOT_JSON"
        assert store.mget(["a"]) == [b"1"]

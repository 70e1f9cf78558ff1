"""What an operation of several requests says when a later one fails, or when a service goes on failing in passing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from faults.proxy import Answer, Misbehaving, Request, api_error, errors
from langchain_kv import DataAPIError, KVStore, PartialWriteError, StoreError

TOKEN = "AstraCS:abcdefghijklmnop:0123456789abcdef0123456789abcdef0123456789abcdef"
REFUSED = Answer(401, b"")


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


def open_store(server: Misbehaving, **more: Any) -> KVStore:
    given = {"token": TOKEN, "keyspace": "k", "deadline_s": 1, "setup_mode": "OFF"}
    return KVStore("c", server.url, **{**given, **more})


def after(count: int, fault: Answer, command: str = "find") -> Any:
    """Return a script by which requests of a command meet a fault, after so many that do not."""
    seen = 0

    def script(request: Request) -> Answer | None:
        nonlocal seen
        seen += request.name == command
        return fault if request.name == command and seen > count else None

    return script


@pytest.mark.parametrize("prefix", ["", "k"])
def test_a_clear_that_ends_half_way_does_not_say_that_all_is_as_before(server: Misbehaving, prefix: str) -> None:
    server.plant(**{f"k{number:03}": number for number in range(120)})
    server.script = after(2, Answer(400, b""))
    with open_store(server) as store, pytest.raises(StoreError) as caught:
        store.clear() if not prefix else store._backend.clear(prefix)
    assert 0 < len(server.values()) < 120
    assert caught.value.applied is None


def test_a_clear_that_never_began_says_so(server: Misbehaving) -> None:
    server.plant(a=1)
    server.script = after(0, Answer(400, b""))
    with open_store(server) as store, pytest.raises(StoreError) as caught:
        store.clear()
    assert caught.value.applied is False


def plant_expired(server: Misbehaving) -> None:
    for number in range(120):
        server.documents[f"k{number:03}"] = json.dumps(
            {"_id": f"k{number:03}", "value": 1, "expires_at": {"$date": 1_000}}
        )


def test_a_purge_counts_also_what_it_removed_before_the_token_was_renewed(server: Misbehaving) -> None:
    plant_expired(server)
    finds = iter([None, REFUSED])
    server.script = lambda request: next(finds, None) if request.name == "find" else None
    with open_store(server, token=lambda: TOKEN) as store:
        removed = store.purge()
    # Its page states are numbers of documents: some of those that moved up are not seen.
    assert removed == 120 - len(server.documents) > 50


def test_a_purge_that_ends_half_way_does_not_say_that_all_is_as_before(server: Misbehaving) -> None:
    plant_expired(server)
    server.script = after(1, Answer(400, b""))
    with open_store(server) as store, pytest.raises(StoreError) as caught:
        store.purge()
    assert 0 < len(server.documents) < 120
    assert caught.value.applied is None


@pytest.mark.parametrize("fault", [REFUSED, Answer(400, b"")], ids=["401", "400"])
def test_what_was_added_is_named_where_the_look_at_the_others_fails(server: Misbehaving, fault: Answer) -> None:
    server.plant(old=1)
    server.script = after(0, fault)
    with open_store(server) as store, pytest.raises(PartialWriteError) as caught:
        store.add([("old", 2), ("new1", 1), ("new2", 2)])
    assert set(caught.value.written) == {"new1", "new2"}
    assert caught.value.unwritten == ("old",)
    assert server.values() == {"old": 1, "new1": 1, "new2": 2}


def test_an_add_goes_on_with_a_fresh_token_after_the_look(server: Misbehaving) -> None:
    server.plant(old=1)
    finds = iter([REFUSED])
    server.script = lambda request: next(finds, None) if request.name == "find" else None
    with open_store(server, token=lambda: TOKEN) as store:
        assert store.add([("old", 2), ("new", 1)]) == ["new"]


@pytest.mark.parametrize("code", ["TIMEOUT_WRITING_DATA", "UNAVAILABLE_DATABASE", "FAILED_WRITE_REQUEST"])
@pytest.mark.parametrize("verb", ["add", "update"])
def test_inserts_that_all_fail_in_passing_wait_and_end_at_the_deadline(
    server: Misbehaving, verb: str, code: str
) -> None:
    def refusing(request: Request) -> Answer | None:
        if request.name == "findOne":
            return Answer(200, b'{"data":{"document":null}}')
        if request.name != "insertMany":
            return None
        ids = [document["_id"] for document in request.options["documents"]]
        return errors(*(api_error(code, ids=[key]) for key in ids))

    server.settings["c"] = {"indexing": {"allow": ["_id", "version"]}}
    server.script = refusing
    began = time.monotonic()
    with open_store(server, atomic=True) as store, pytest.raises(DataAPIError, match=code) as caught:
        store.add([("a", 1), ("b", 2)]) if verb == "add" else store.update("a", lambda old: 1)
    assert time.monotonic() - began < 10  # far from the 20 s in which an update may be overtaken
    assert server.names.count("insertMany") < 60
    assert caught.value.retryable
    assert caught.value.applied is None


@pytest.mark.parametrize("before", range(0, 520, 13))
@pytest.mark.parametrize("where", ["message", "title", "page"])
def test_no_part_of_the_token_stands_in_an_error_wherever_its_text_is_cut(
    server: Misbehaving, where: str, before: int
) -> None:
    text = f"{'y' * before} {TOKEN} was refused"
    entry = {**api_error("UNAUTHENTICATED_REQUEST", scope="SECURITY", family="REQUEST"), where: text}
    server.script = lambda request: (
        Answer(502, b"<html><title>%b</title>" % text.encode()) if where == "page" else errors(entry)
    )
    with open_store(server, deadline_s=0.05) as store, pytest.raises(StoreError) as caught:
        store.mget(["x"])
    assert "AstraCS" not in str(caught.value)
    assert "0123456789" not in str(caught.value)


def test_the_error_of_a_document_holds_no_token(server: Misbehaving) -> None:
    entry = {
        **api_error("SHRED_BAD_FIELD_NAME", scope="DOCUMENT", family="REQUEST", ids=["a"]),
        "message": f"no {TOKEN}",
    }
    server.script = lambda request: errors(entry) if request.name == "insertMany" else None
    with open_store(server) as store, pytest.raises(StoreError) as caught:
        store.add([("a", 1)])
    assert "AstraCS" not in str(caught.value)

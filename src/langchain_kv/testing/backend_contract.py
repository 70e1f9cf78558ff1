"""What every backend promises, as tests: subclass ``BackendContract`` in a test module of pytest.

Example::

    class TestMine(BackendContract):
        def open(self, collection):
            return MyBackend(collection)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_kv.backends.base import Backend, Record
from langchain_kv.backends.documents import found_in
from langchain_kv.engines.base import Held
from langchain_kv.errors import PartialWriteError, StoreClosedError, UnsupportedError
from langchain_kv.runtime import clock
from langchain_kv.testing.contract import FUTURE_MS, PAST_MS, Clock, Face, values_of
from langchain_kv.testing.merge_contract import MergeContract
from langchain_kv.values.records import Kind

__all__ = ["BackendContract", "Face"]

RECORDS = [
    Record("object", b'{"n":1,"list":[1,2.5,null,true,"x"]}'),
    Record("null", b"null"),
    Record("big", b"1180591620717411303425"),
    Record("answer", b'"text"', Kind.BODY_BLOB),
    Record("dollar", b'{"$ref":1,"":2}', Kind.TEXT),
    Record("surrogate", b'"\\ud800"', Kind.TEXT),
    Record("bytes", bytes(range(256)), Kind.BYTES),
    Record("no bytes", b"", Kind.BYTES),
    Record("looks like JSON", b'{"_id":"x"}', Kind.BYTES),
]
VALUES: list[Any] = [
    {"n": 1, "list": [1, 2.5, None, True, "x"]},
    None,
    2**70 + 1,  # no float is as exact
    "text",
    {"$ref": 1, "": 2},
    "\ud800",
    bytes(range(256)),
    b"",
    b'{"_id":"x"}',
]
KEYS = [
    "a/b",
    "a\\b",
    "a\0b",
    " a",
    "%",
    "_",
    "*",
    "[a]",
    "a:b",
    "'",
    '"',
    "$id",
    "\u00e9",
    "e\u0301",
    "\U0001f600",
    "\uffff",
]

TREES: dict[str, list[str]] = {
    "\x1fa": ["\x1fa\x1ek", "\x1fa\x1fb\x1ek", "\x1fa\x1fb\x1fc\x1ek"],
    "\x1fa\x1fb": ["\x1fa\x1fb\x1ek", "\x1fa\x1fb\x1fc\x1ek"],
    "\x1fa\x1fb\x1fc": ["\x1fa\x1fb\x1fc\x1ek"],
    "\x1fab": ["\x1fab\x1e", "\x1fab\x1ek"],
    "\x1fa\x1df": ["\x1fa\x1df\x1ek"],
    "\x1fb": ["\x1fb\x1e\x1fa\x1ek"],
    "\x1fc": [],
}
"""Of each of these namespaces, the keys in it and in those below it, as ``values/namespaces.py`` encodes them."""

IN_NONE = ["a", "ab", "k", "\x1e", "\x1ek"]


class BackendContract(MergeContract):
    """The tests. A subclass defines ``open``, and may override the attributes.

    Attributes:
        keeps_bytes_apart: whether a value of bytes comes back as bytes; else as base64 text.
        adds: whether ``add_many`` is there; else UnsupportedError is expected.
        updates: the same of ``update``.
    """

    keeps_bytes_apart = True

    def open(self, collection: str) -> Backend:
        """Return a backend on a collection, which the tests open and close; two of one collection share its records."""
        raise NotImplementedError

    # -- fixtures ---------------------------------------------

    @pytest.fixture
    def backend(self, collection: str) -> Iterator[Backend]:
        """A backend on it, open and empty."""
        backend = self.open(collection)
        backend.open()
        yield backend
        backend.close()

    @pytest.fixture(params=["sync", "async"])
    def face(self, request: pytest.FixtureRequest, backend: Backend) -> Face:
        """Its plain calls, then its coroutines."""
        return Face(backend, request.param == "async")

    # -- reading and writing ---------------------------------------------

    def test_every_kind_of_record_comes_back(self, face: Face) -> None:
        face.put_many(RECORDS)
        found = face.get_many([record.key for record in RECORDS])
        if self.keeps_bytes_apart:
            assert values_of(found) == VALUES
            assert [one.kind is Kind.BYTES for one in found] == [record.kind is Kind.BYTES for record in RECORDS]
            scanned = dict(face.scan())
            assert values_of([scanned[record.key] for record in RECORDS]) == VALUES
        else:
            assert values_of(found)[:6] == VALUES[:6]

    def test_answers_come_in_the_order_of_the_keys(self, face: Face) -> None:
        face.put_many([Record("a", b"1"), Record("b", b"2")])
        assert values_of(face.get_many(["b", "x", "a"])) == [2, None, 1]
        assert face.get_many(["x"]) == [None]
        assert face.get_many([]) == []

    def test_what_is_skimmed_is_what_is_read(self, face: Face) -> None:
        face.put_many([*RECORDS, Record("lives", b"1", Kind.JSON, FUTURE_MS), Record("gone", b"1", Kind.JSON, PAST_MS)])
        keys = ["lives", "gone", "x", *[record.key for record in RECORDS]]
        skimmed = [found_in(one) if type(one) is bytes else one for one in face.skim_many(keys)]
        assert skimmed == face.get_many(keys)
        assert face.skim_many([]) == []

    def test_what_exists_is_replaced_whole(self, face: Face) -> None:
        face.put_many([Record("a", b'{"$x":1}', Kind.TEXT, FUTURE_MS), Record("b", b"b", Kind.BYTES)])
        face.put_many([Record("a", b"2"), Record("b", b"3")])
        found = face.get_many(["a", "b"])
        assert [(one.value, one.kind, one.expires_at_ms) for one in found] == [
            (2, Kind.JSON, None),
            (3, Kind.JSON, None),
        ]

    def test_missing_keys_are_no_error_to_remove(self, face: Face) -> None:
        face.put_many([Record("a", b"1"), Record("b", b"2")])
        face.delete_many(["a", "x"])
        face.delete_many([])
        assert face.keys() == ["b"]

    def test_batches_may_have_any_size(self, face: Face) -> None:
        keys = [f"k{number:05}" for number in range(1_234)]
        face.put_many([Record(key, b'"%b"' % key.encode()) for key in keys])
        assert values_of(face.get_many(keys[::-1])) == keys[::-1]
        assert face.keys() == keys
        assert face.count("k0000") == 10
        assert sorted(key for key, _ in face.scan("k00")) == keys[:1_000]
        face.delete_many(keys[1:])
        assert face.keys() == keys[:1]
        face.put_many([])

    def test_any_text_is_a_key_and_a_literal_prefix(self, face: Face) -> None:
        face.put_many([Record(key, b"1") for key in KEYS])
        assert face.keys() == sorted(KEYS)
        for prefix in KEYS:
            assert face.keys(prefix) == sorted(key for key in KEYS if key.startswith(prefix))

    def test_both_ways_of_calling_see_the_same(self, backend: Backend) -> None:
        plain, coroutines = Face(backend, False), Face(backend, True)
        plain.put_many([Record("a", b"1")])
        assert values_of(coroutines.get_many(["a"])) == [1]
        coroutines.put_many([Record("a", b"2")])
        assert values_of(plain.get_many(["a"])) == [2]

    def test_keys_that_stay_are_listed_once_while_others_change(self, face: Face) -> None:
        keys = [f"k{number:04}" for number in range(700)]
        face.put_many([Record(key, b"1") for key in keys])
        seen: list[str] = []
        for page in face.target.scan("", values=False):
            if not seen:
                face.delete_many(keys[1::2])
                face.put_many([Record(f"new{number}", b"1") for number in range(50)])
            seen += [key for key, _ in page]
        assert len(seen) == len(set(seen))
        assert set(seen) >= set(keys[::2])

    def test_a_scan_goes_on_behind_a_key_where_keys_have_an_order(self, backend: Backend) -> None:
        keys = [f"a{number:04}" for number in range(1_234)]
        backend.put_many([Record(key, b"1") for key in ["b", *keys]])
        if not backend.in_key_order:
            with pytest.raises(UnsupportedError):
                list(backend.scan_after("a", keys[0]))
            return
        listed = [key for page in backend.scan("a", values=True) for key, _ in page]
        at = listed[600]
        backend.delete_many([at])
        left = [(key, stored) for page in backend.scan_after("a", at) for key, stored in page]
        assert [key for key, _ in left] == listed[601:]
        assert values_of([stored for _, stored in left]) == [1] * 633

    def test_bytes_are_read_as_bytes_if_only_copies_wrote_them(self, face: Face) -> None:
        kind = Kind.BYTES if face.target.keeps_bytes else Kind.MARKED_BYTES
        face.put_many([Record("a", b"\x00\xff", kind, FUTURE_MS), Record("b", b"", kind)])
        found = face.get_many(["a", "b"])
        assert [(one.value, one.kind) for one in found] == [(b"\x00\xff", Kind.BYTES), (b"", Kind.BYTES)]
        assert values_of([stored for _, stored in sorted(face.scan(), key=lambda item: item[0])]) == [b"\x00\xff", b""]

    def test_threads_may_share_it(self, backend: Backend) -> None:
        def work(worker: int) -> list[Any]:
            face = Face(backend, worker % 2 == 1)
            for number in range(10):
                face.put_many([Record(f"{worker}-{number}", b"%d" % number)])
            return values_of(face.get_many([f"{worker}-{number}" for number in range(10)]))

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(work, range(6))) == [list(range(10))] * 6

    # -- namespaces ---------------------------------------------

    def test_a_namespace_is_listed_with_those_below_it_and_no_other(self, face: Face) -> None:
        keys = sorted({key for some in TREES.values() for key in some})
        many = [f"\x1fmany\x1e{number:04}" for number in range(700)]
        face.put_many([Record(key, b"%d" % len(key)) for key in [*keys, *many, *IN_NONE]])
        for tree, some in {**TREES, "": [*keys, *many], "\x1fmany": many}.items():
            assert face.in_tree(tree, values=False) == [(key, None) for key in some]
            found = face.in_tree(tree)
            assert [key for key, _ in found] == some
            assert values_of([stored for _, stored in found]) == [len(key) for key in some]

    def test_a_scan_for_what_holds_a_text_leaves_none_of_it_out(self, face: Face) -> None:
        face.put_many(
            [
                Record("\x1fa\x1e1", b'{"n":["needle"]}'),
                Record("\x1fa\x1e2", b'"hay"'),
                Record("\x1fa\x1fb\x1e3", b'"needle"', Kind.JSON, FUTURE_MS),
                Record("\x1fa\x1e4", b'{"$ref":"needle"}', Kind.TEXT),
                Record("\x1fab\x1e5", b'"needle"'),
            ]
        )
        found = dict(face.in_tree("\x1fa", holding=Held('"needle', '"\\')))
        found.pop("\x1fa\x1e2", None)  # which may be left out
        assert list(found) == ["\x1fa\x1e1", "\x1fa\x1e4", "\x1fa\x1fb\x1e3"]
        assert values_of([*found.values()]) == [{"n": ["needle"]}, {"$ref": "needle"}, "needle"]

    def test_the_namespaces_are_those_that_keys_are_in(self, face: Face) -> None:
        keys = sorted({key for some in TREES.values() for key in some})
        face.put_many([Record(key, b"1") for key in [*keys, *IN_NONE]])
        for tree, some in {**TREES, "": keys}.items():
            assert face.namespaces(tree) == {key[: key.index("\x1e") + 1] for key in some}
        face.delete_many(TREES["\x1fa\x1fb"])
        assert face.namespaces("\x1fa") == {"\x1fa\x1e"}

    def test_what_has_expired_is_in_no_namespace(self, face: Face, time: Clock) -> None:
        soon = clock.now_ms() + 1_000_000
        face.put_many([Record("\x1fa\x1ek", b"1", Kind.JSON, soon), Record("\x1fa\x1fb\x1ek", b"2")])
        assert face.namespaces("\x1fa") == {"\x1fa\x1e", "\x1fa\x1fb\x1e"}
        time.now_s = 2_000
        assert [key for key, _ in face.in_tree("\x1fa")] == ["\x1fa\x1fb\x1ek"]
        assert face.in_tree("", values=False) == [("\x1fa\x1fb\x1ek", None)]
        assert face.namespaces("\x1fa") == face.namespaces("") == {"\x1fa\x1fb\x1e"}

    # -- expiry ---------------------------------------------

    def test_what_has_expired_is_neither_served_nor_listed(self, face: Face) -> None:
        face.put_many([Record("old", b"1", Kind.JSON, PAST_MS), Record("bytes", b"1", Kind.BYTES, PAST_MS)])
        face.put_many([Record("new", b"2", Kind.JSON, FUTURE_MS), Record("for ever", b"3")])
        assert values_of(face.get_many(["old", "new", "for ever", "bytes"])) == [None, 2, 3, None]
        assert face.keys() == ["for ever", "new"]
        assert sorted(key for key, _ in face.scan()) == ["for ever", "new"]
        assert face.count("") == 2

    def test_expiry_comes_with_the_clock(self, face: Face, time: Clock) -> None:
        now = clock.now_ms()
        face.put_many([Record("a", b"1", Kind.JSON, now + 1_000_000), Record("b", b"x", Kind.BYTES, now + 2_000_000)])
        assert [one.expires_at_ms for one in face.get_many(["a", "b"])] == [now + 1_000_000, now + 2_000_000]
        time.now_s = 1_000
        assert face.keys() == ["b"]
        assert face.get_many(["a"]) == [None]

    def test_purging_removes_what_has_expired_only(self, face: Face, time: Clock) -> None:
        now = clock.now_ms()
        face.put_many([Record(f"old{number}", b"1", Kind.JSON, now + 1_000_000) for number in range(30)])
        face.put_many([Record("new", b"1", Kind.JSON, now + 9_000_000), Record("for ever", b"1")])
        time.now_s = 2_000
        assert face.purge() == 30
        time.now_s = 0
        assert face.keys() == ["for ever", "new"]

    # -- add, update, clear ---------------------------------------------

    def test_adding_stores_what_is_absent_and_says_what_was(self, face: Face) -> None:
        face.put_many([Record("there", b"1"), Record("expired", b"1", Kind.JSON, PAST_MS)])
        with self._supported(self.adds):
            added = face.add_many([Record("there", b"2"), Record("new", b"2"), Record("expired", b"2")])
            assert added == [False, True, True]
            assert values_of(face.get_many(["there", "new", "expired"])) == [1, 2, 2]

    def test_of_many_who_add_one_key_one_wins(self, backend: Backend) -> None:
        barrier = threading.Barrier(8)

        def add(worker: int) -> bool:
            barrier.wait()
            (added,) = Face(backend, worker % 2 == 1).add_many([Record("a", b"%d" % worker)])
            return bool(added)

        with self._supported(self.adds), ThreadPoolExecutor(8) as pool:
            winners = list(pool.map(add, range(8)))
            assert winners.count(True) == 1
            assert values_of(backend.get_many(["a"])) == [winners.index(True)]

    def test_an_update_sees_what_is_there(self, face: Face) -> None:
        seen: list[Any] = []

        def change(stored: Any) -> Record | None:
            seen.append(stored and stored.value)
            return None if len(seen) == 3 else Record("a", b"%d" % len(seen))

        with self._supported(self.updates):
            for _ in range(4):
                face.update("a", change)
            assert seen == [None, 1, 2, None]
            assert values_of(face.get_many(["a"])) == [4]

    def test_touching_moves_moments_of_expiry_away_only(self, face: Face) -> None:
        now = clock.now_ms()
        soon, late, later = now + 1_000_000, now + 2_000_000, now + 3_000_000
        face.put_many([Record("a", b"1", Kind.JSON, soon), Record("b", b"b", Kind.BYTES, soon), Record("c", b"3")])
        face.put_many([Record("d", b'{"$x":4}', Kind.TEXT, later), Record("gone", b"5", Kind.JSON, PAST_MS)])
        assert face.target.can_update is self.updates
        with self._supported(self.updates):
            face.touch_many(["a", "b", "c", "d", "gone", "x"], late)
            found = face.get_many(["a", "b", "c", "d", "gone", "x"])
            assert values_of(found) == [1, b"b" if self.keeps_bytes_apart else "Yg==", 3, {"$x": 4}, None, None]
            assert [one and one.expires_at_ms for one in found] == [late, late, None, later, None, None]

    def test_what_an_update_raises_changes_nothing(self, face: Face) -> None:
        face.put_many([Record("a", b"1")])

        def change(_: Any) -> Record | None:
            raise ZeroDivisionError

        with self._supported(self.updates), pytest.raises(ZeroDivisionError):
            face.update("a", change)
        assert values_of(face.get_many(["a"])) == [1]

    def test_no_update_is_lost(self, backend: Backend) -> None:
        def change(stored: Any) -> Record:
            return Record("a", b"%d" % (stored.value + 1 if stored else 1))

        def work(worker: int) -> None:
            for _ in range(20):
                Face(backend, worker % 2 == 1).update("a", change)

        with self._supported(self.updates), ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
            assert values_of(backend.get_many(["a"])) == [80]

    def test_clearing_a_prefix_leaves_the_rest(self, face: Face) -> None:
        face.put_many([Record(key, b"1") for key in ("a", "ab", "b")])
        face.clear("a")
        assert face.keys() == ["b"]
        face.clear("")
        assert face.keys() == []

    # -- life ---------------------------------------------

    def test_opening_again_keeps_records_unless_they_are_to_be_cleared(self, collection: str, face: Face) -> None:
        face.put_many([Record("a", b"1")])
        other = Face(self.open(collection), face.is_async)
        other.open()
        assert other.keys() == ["a"]
        other.open(clear=True)
        assert face.keys() == []
        other.close()

    def test_closing_ends_it_for_good(self, collection: str, face: Face) -> None:
        other = Face(self.open(collection), face.is_async)
        other.open()
        other.close()
        other.close()
        for call in (lambda: other.get_many(["a"]), lambda: other.put_many([Record("a", b"1")]), other.scan):
            with pytest.raises(StoreClosedError):
                call()
        face.put_many([Record("a", b"1")])

    def test_a_record_that_cannot_be_kept_is_named_and_nothing_is_lost(self, face: Face) -> None:
        face.put_many([Record("a", b"1")])
        huge = Record("too large", b'"%b"' % (b"x" * 5_000_000))
        try:
            face.put_many([Record("a", b"2"), huge])
        except PartialWriteError as error:
            assert error.unwritten == ("too large",)
        except ValueError as error:
            assert "too large" in str(error)
            assert values_of(face.get_many(["a"])) == [1]

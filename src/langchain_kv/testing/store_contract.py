"""What every store promises, wherever its values are, as tests: subclass ``StoreContract`` in a test module of pytest.

Example::

    class TestMine(StoreContract):
        def open(self, collection, kind, **options):
            return kind(collection, MyPlace(), **options)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from langchain_kv.errors import (
    InvalidKeyError,
    InvalidValueError,
    PartialWriteError,
    UsageError,
)
from langchain_kv.limits import KEY_MAX_BYTES
from langchain_kv.stores.base import KVBaseStore, KVByteStore, KVStore
from langchain_kv.testing.contract import Clock, Opened, StoreFace
from langchain_kv.testing.extended_contract import ExtendedContract

__all__ = ["StoreContract"]

VALUES: list[tuple[str, Any]] = [
    ("object", {"n": 1, "list": [1, 2.5, None, True, "x"], "deep": {"a": {"b": []}}}),
    ("text", "h\u00e9llo \U0001f600 \x00"),
    ("number", 1.5),
    ("whole float", 2.0),
    ("minus zero", -0.0),
    ("no float", 2**53 + 1),
    ("big", 2**70),
    ("bigger", 10**99),
    ("over the limit of digits", 10**100),
    ("tiny", 5e-324),
    ("true", True),
    ("empty", {}),
    ("empty list", []),
    ("empty text", ""),
    ("dollar", {"$ref": 1, "": 2}),
    ("date", {"$date": 1700000000000}),
    ("uuid", {"$uuid": "not checked"}),
    ("deep", [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]),
    ("surrogate", "\ud800"),
    ("vector", [0.1 * n for n in range(1536)]),
]
BYTES = [
    ("bytes", bytes(range(256))),
    ("none", b""),
    ("array", bytearray(b"12")),
    ("view", memoryview(b"34")),
    ("strided", memoryview(b"abcdef")[::2]),
    ("looks like JSON", b'{"_id":"x"}'),
]
KEYS = [
    *("a", "a%", "a_", "a*", "aa", "ab", "b", "A", "a\x00", "a\U0010ffff", "a\U0010ffff\U0010ffff", "\U0010ffff"),
    *("a\ud7ff", "a\ue000", "\u00e9", "e\u0301", " a", "a/b", "a\\b", "[a]", "'", '"', "$id", "a:b"),
]
PREFIXES = [None, "", "zz", "e", *KEYS]


class StoreContract(ExtendedContract):
    """The tests. A subclass defines ``open``, and may define ``peek`` and override the attributes.

    Attributes:
        key_max_bytes: how many bytes of UTF-8 a key may take.
        allows_empty_key: whether the empty text is a key; else InvalidKeyError is expected.
        adds: whether ``add`` is there; else UnsupportedError is expected.
        updates: the same of ``update`` and of ``refresh_on_read``.
    """

    key_max_bytes = KEY_MAX_BYTES
    allows_empty_key = False

    def open(self, collection: str, kind: type[Any], **options: Any) -> KVBaseStore[Any]:
        """Return a new store, which the tests close; those of one collection share its values.

        Args:
            collection: the collection's name.
            kind: KVStore or KVByteStore.
            options: arguments of its constructor, to be handed on: ``ttl_s``, ``setup_mode`` and others.
        """
        raise NotImplementedError

    def peek(self, collection: str) -> Iterable[str] | None:
        """Return the keys that the place really keeps, expired ones too, without asking a store.

        None, if nobody defines it: the tests that need it are skipped.
        """
        return None

    # -- fixtures -----------------------------------------------------------------------------------------------------

    @pytest.fixture(params=["sync", "async"])
    def opened(self, request: pytest.FixtureRequest, collection: str) -> Iterator[Opened]:
        """A function that opens one more store on the test's collection: its plain methods, then its coroutines, all in
        one event loop."""
        with ExitStack() as ends:
            runner = ends.enter_context(asyncio.Runner())

            def open_one(kind: type[Any] = KVStore, **options: Any) -> StoreFace:
                store = self.open(collection, kind, **options)
                ends.callback(store.close)
                return StoreFace(store, request.param == "async", runner.run)

            yield open_one

    @pytest.fixture
    def face(self, opened: Opened) -> StoreFace:
        """A store of JSON values, empty."""
        return opened()

    @pytest.fixture
    def blobs(self, opened: Opened) -> StoreFace:
        """A store of bytes, empty."""
        return opened(KVByteStore)

    # -- reading and writing ------------------------------------------------------------------------------------------

    def test_any_json_value_comes_back(self, face: StoreFace) -> None:
        face.mset(VALUES)
        assert face.mget([key for key, _ in VALUES]) == [value for _, value in VALUES]
        assert face.items() == sorted(VALUES)

    def test_bytes_and_what_has_them_come_back_as_bytes(self, blobs: StoreFace) -> None:
        blobs.mset(BYTES)
        found = blobs.mget([key for key, _ in BYTES])
        assert found == [bytes(value) for _, value in BYTES]
        assert {type(value) for value in found} == {bytes}
        assert blobs.items() == sorted((key, bytes(value)) for key, value in BYTES)

    def test_what_is_written_one_way_is_read_the_other(self, face: StoreFace) -> None:
        other = StoreFace(face.target, not face.is_async)
        face.mset([("a", 1)])
        assert other.mget(["a"]) == [1]
        other.mset([("a", 2)])
        assert face.mget(["a"]) == [2]

    def test_order_and_repeats_of_mget_are_kept(self, face: StoreFace) -> None:
        face.mset([("a", 1), ("b", 2)])
        assert face.mget(["b", "x", "a", "b", "x"]) == [2, None, 1, 2, None]

    def test_last_of_duplicate_keys_wins(self, face: StoreFace) -> None:
        for round_ in range(2):  # new keys, then existing ones
            face.mset([(f"k{n % 7}", [round_, n]) for n in range(60)])
            last = [max(n for n in range(60) if n % 7 == key) for key in range(7)]
            assert face.mget([f"k{key}" for key in range(7)]) == [[round_, n] for n in last]
        assert len(face.keys()) == 7

    def test_iterables_are_read_once(self, face: StoreFace) -> None:
        face.mset((key, 1) for key in ("a", "b", "c"))
        assert face.mget(key for key in ("a", "b")) == [1, 1]
        face.mdelete(key for key in ("a", "b"))
        assert face.keys() == ["c"]

    def test_empty_batches_do_nothing(self, face: StoreFace) -> None:
        assert face.mget([]) == []
        assert face.mset([]) is None
        assert face.mdelete([]) is None
        assert face.keys() == []

    def test_deleting_twice_and_missing_keys_is_fine(self, face: StoreFace) -> None:
        face.mset([("a", 1), ("b", 2)])
        face.mdelete(["a", "a", "missing"])
        face.mdelete(["a"])
        assert face.mget(["a", "b"]) == [None, 2]

    def test_nothing_is_kept_of_what_was_deleted(self, face: StoreFace, collection: str) -> None:
        face.mset([("a", 1), ("b", 2)])
        assert self._kept(collection) == ["a", "b"]
        face.mdelete(["a"])
        assert self._kept(collection) == ["b"]
        face.clear()
        assert self._kept(collection) == []

    def test_purging_removes_what_has_expired(self, face: StoreFace, time: Clock, collection: str) -> None:
        face.mset([(f"old{n}", {"$": n} if n % 2 else n) for n in range(30)], ttl_s=10)
        face.mset([("new", 1)])
        assert face.purge() == 0
        time.now_s = 11
        assert face.purge() == 30
        time.now_s = 0
        assert face.keys() == ["new"]
        assert self._kept(collection) == ["new"]

    @pytest.mark.parametrize("kind", [KVStore, KVByteStore])
    def test_none_is_stored_listed_and_reads_as_missing(self, opened: Opened, kind: type[Any]) -> None:
        face = opened(kind)
        face.mset([("a", None)])
        assert face.mget(["a"]) == [None]
        assert face.items() == [("a", None)]

    @pytest.mark.parametrize("count", [0, 1, 4, 5, 20, 21, 49, 50, 51, 99, 100, 101, 250, 1_001])
    def test_batches_of_any_size(self, face: StoreFace, count: int) -> None:
        pairs = [(f"key {n:04}", {"n": n}) for n in range(count)]
        keys = [key for key, _ in pairs]
        face.mset(pairs)
        assert face.mget(keys[::-1]) == [value for _, value in pairs[::-1]]
        face.mset([(key, [value]) for key, value in pairs])
        assert face.items() == [(key, [value]) for key, value in pairs]
        assert face.keys() == keys
        face.mdelete(keys[1:])
        assert face.keys() == keys[:1]

    # -- keys ---------------------------------------------------------------------------------------------------------

    def test_any_text_is_a_key_and_a_literal_prefix(self, face: StoreFace) -> None:
        face.mset([(key, key) for key in KEYS])
        assert face.mget(KEYS) == KEYS
        for prefix in PREFIXES:
            expected = sorted(key for key in KEYS if key.startswith(prefix or ""))
            assert face.keys(prefix) == expected
            assert face.items(prefix) == [(key, key) for key in expected]

    def test_keys_of_the_greatest_length_work(self, face: StoreFace) -> None:
        keys = [text * (self.key_max_bytes // len(text.encode())) for text in ("x", "\u20ac", "\U0001f600")]
        face.mset([(key, key[:5]) for key in keys])
        assert face.mget(keys) == [key[:5] for key in keys]
        assert face.keys() == sorted(keys)

    @pytest.mark.parametrize("key", ["", 5, None, b"a", "too long", "\ud800"])
    def test_a_bad_key_is_refused_before_anything_is_stored(self, face: StoreFace, collection: str, key: Any) -> None:
        if key == "" and self.allows_empty_key:
            self._check_it_is_a_key(face)
            return
        if key == "too long":
            key = "x" * (self.key_max_bytes + 1)
        pairs = [("good", 1), (key, 2)]
        for verb, argument in (("mset", pairs), ("add", pairs), ("mget", ["good", key]), ("mdelete", [key])):
            with pytest.raises(InvalidKeyError) as caught:
                getattr(face, verb)(argument)
            assert caught.value.applied is False
        self._check_nothing_is_there(face, collection)

    def _check_it_is_a_key(self, face: StoreFace) -> None:
        for target in (face, face.namespace("n")):
            target.mset([("", 1), ("a", 2)])
            assert target.mget(["a", ""]) == [2, 1]
            assert target.keys() == ["", "a"]
            assert target.items() == [("", 1), ("a", 2)]
        face.mdelete([""])
        assert face.mget([""]) == [None]
        assert face.namespace("n").mget([""]) == [1]

    def test_a_prefix_that_is_no_text_is_refused(self, face: StoreFace) -> None:
        for prefix in ("\ud800", 5, b"a"):
            for verb in (face.keys, face.items, face.count, face.clear):
                with pytest.raises(InvalidKeyError):
                    verb(prefix)

    def test_an_abandoned_listing_is_no_trouble(self, face: StoreFace) -> None:
        face.mset([(f"k{n}", n) for n in range(300)])
        listing = face.target.yield_keys()
        next(listing)
        listing.close()

        async def begin() -> None:
            alisting = face.target.ayield_items()
            await anext(alisting)
            await alisting.aclose()

        asyncio.run(begin())
        assert len(face.keys()) == 300

    # -- refusals -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("value", "kind", "where"),
        [
            ({"a": [0, {1: 2}]}, TypeError, r"\['a'\]\[1\]"),
            ([{1, 2}], TypeError, r"\[0\]"),
            ([0, math.nan], ValueError, r"\[1\]"),
        ],
    )
    def test_a_bad_value_is_named_with_its_place_before_anything_is_stored(
        self, face: StoreFace, collection: str, value: Any, kind: type[Exception], where: str
    ) -> None:
        for verb in (face.mset, face.add):
            with pytest.raises(kind, match=f"'bad'.*{where}") as caught:
                verb([("good", 1), ("bad", value)])
            assert isinstance(caught.value, InvalidValueError)
        self._check_nothing_is_there(face, collection)

    @pytest.mark.parametrize("value", ["text", [1], 5])
    def test_a_byte_store_refuses_what_is_not_bytes(self, blobs: StoreFace, collection: str, value: Any) -> None:
        with pytest.raises(TypeError, match="'bad'"):
            blobs.mset([("good", b"1"), ("bad", value)])
        self._check_nothing_is_there(blobs, collection)

    def test_a_value_that_is_too_large_is_named_and_nothing_is_lost(self, face: StoreFace) -> None:
        face.mset([("a", 1)])
        huge = "x" * 5_000_000
        try:
            face.mset([("a", 2), ("too large", huge)])
        except PartialWriteError as error:
            assert error.unwritten == ("too large",)
        except InvalidValueError as error:
            assert "'too large'" in str(error)
            assert face.items() == [("a", 1)]
        else:
            assert face.mget(["a", "too large"]) == [2, huge]

    @pytest.mark.parametrize("pairs", [("a", 1), [("a",)], [("a", 1, 2)], ["ab"], [5], [None], {"ab": 1}])
    def test_what_is_no_pair_is_refused_and_nothing_is_stored(
        self, face: StoreFace, collection: str, pairs: Any
    ) -> None:
        with pytest.raises(UsageError, match="pairs"):
            face.mset(pairs)
        self._check_nothing_is_there(face, collection)

    def test_a_text_in_the_place_of_keys_is_refused(self, face: StoreFace) -> None:
        for verb in (face.mget, face.mdelete):
            with pytest.raises(UsageError):
                verb("ab")

    def test_a_value_in_the_place_of_a_key_is_not_shown(self, face: StoreFace) -> None:
        with pytest.raises(InvalidKeyError) as caught:
            face.mset([({"password": "hunter2"}, "k")])
        assert "hunter2" not in str(caught.value)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _kept(self, collection: str) -> list[str]:
        kept = self.peek(collection)
        if kept is None:
            pytest.skip("peek() is not defined: what the place really keeps cannot be looked at")
        return sorted(kept)

    def _check_nothing_is_there(self, face: StoreFace, collection: str) -> None:
        assert face.keys() == []
        assert not list(self.peek(collection) or ())

"""Subclasses of builtins as keys and values, on every place, sync and async: stored as the builtin, or refused."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, UserDict, defaultdict, namedtuple
from typing import Any

import numpy
import pytest

from langchain_kv import InvalidValueTypeError, KVByteStore, KVStore, StoreError


class HexLike(bytes):
    """As web3's HexBytes: what it shows is not what it is."""

    def __repr__(self) -> str:
        return "0x"

    __str__ = __repr__

    def __iter__(self) -> Any:
        raise RuntimeError("not asked for")


class Growing(bytearray):
    pass


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return "something else"


class Caller(str, enum.Enum):  # noqa: UP042 - it formats as its member's name
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Loud(float):
    def __repr__(self) -> str:
        return "loud"

    __str__ = __repr__


class Items(list[Any]):
    pass


class Fields(dict[Any, Any]):
    pass


Pair = namedtuple("Pair", "a b")

VALUES = [
    (Text("text"), "text"),
    (Caller.RED, "red"),
    (numpy.str_("text"), "text"),
    (Level.HIGH, 3),
    (numpy.float64(1.5), 1.5),
    (Loud(2.5), 2.5),
    (Items([1, Text("a")]), [1, "a"]),
    (Pair(1, Caller.RED), [1, "red"]),
    (Fields({Text("a"): 1, Caller.RED: Caller.RED}), {"a": 1, "red": "red"}),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Counter("aab"), {"a": 2, "b": 1}),
]

BYTES = [
    (HexLike(b"\x00\x01"), b"\x00\x01"),
    (HexLike(b""), b""),
    (HexLike(b"{}"), b"{}"),
    (numpy.bytes_(b"abc"), b"abc"),
    (Growing(b"\xff"), b"\xff"),
    (memoryview(HexLike(b"wide"))[::2], b"wd"),
    (memoryview(numpy.array([1, 2], dtype="<u2")), b"\x01\x00\x02\x00"),
]


def test_values_of_subclasses_are_stored_as_the_builtin(place: Any, face: Any) -> None:
    name = place.lend()
    store = face(place.store(KVStore, name))
    pairs = [(f"k{number}", value) for number, (value, _) in enumerate(VALUES)]
    store.mset(pairs)
    for pair in pairs:  # each by itself, too, which is another way
        store.mset([pair])

    read = store.mget([key for key, _ in pairs])
    assert read == [expected for _, expected in VALUES]
    assert [place.peek(name, key)["value"] for key, _ in pairs] == read


def test_bytes_of_subclasses_are_stored_as_bytes(place: Any, face: Any) -> None:
    store = face(place.store(KVByteStore))
    pairs = [(f"k{number}", value) for number, (value, _) in enumerate(BYTES)]
    store.mset(pairs)

    read = store.mget([key for key, _ in pairs])
    assert read == [expected for _, expected in BYTES]
    assert {type(value) for value in read} == {bytes}


def test_keys_and_prefixes_of_subclasses_are_texts(place: Any, face: Any) -> None:
    store = face(place.store(KVStore))
    store.mset([(Text("a"), 1), (Caller.RED, 2), (numpy.str_("c"), 3)])
    store.mset([("a", 4), (Text("a"), 5)])

    assert store.mget(["a", "red", "c", Text("a")]) == [5, 2, 3, 5]
    keys = store.keys()
    assert sorted(keys) == ["a", "c", "red"]
    assert {type(key) for key in keys} == {str}
    assert store.keys(prefix=Caller.RED) == ["red"]
    store.mdelete([Caller.RED, Text("a")])
    assert store.keys() == ["c"]


REFUSED = [numpy.int64(1), numpy.float32(1), numpy.bool_(True), numpy.array([1]), UserDict(a=1), HexLike(b"x"), {1, 2}]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_no_json_is_is_refused_alike(place: Any, face: Any, value: Any) -> None:
    store = face(place.store(KVStore))
    for batch in ([("a", value)], [("good", 1), ("a", [value])]):
        with pytest.raises(InvalidValueTypeError, match=r"'a'.*not JSON"):
            store.mset(batch)
    assert store.keys() == []


def test_a_memoryview_that_was_released_is_refused(place: Any, face: Any) -> None:
    view = memoryview(b"gone")
    view.release()
    with pytest.raises(StoreError, match=r"'k'.*released"):
        face(place.store(KVByteStore)).mset([("k", view)])

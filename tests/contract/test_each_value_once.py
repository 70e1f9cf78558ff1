"""A store's ``encode_value`` and ``decode_value`` are called once for each value, which they may use up."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
from langchain_core.documents import Document

from langchain_kv import DamagedValueError, DocumentStore, InvalidValueError, KVByteStore, KVStore
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.values.codecs import UndecodableError
from places import Place


class Lines(KVBaseStore[Any]):
    """Keeps what an iterator yields, and counts."""

    encoded: ClassVar[list[Any]] = []
    decoded: ClassVar[Counter[Any]] = Counter()

    def encode_value(self, value: Iterator[Any] | None) -> Any:
        self.encoded.append(value)
        return None if value is None else list(value)

    def decode_value(self, value: Any) -> Any:
        self.decoded[value[0]] += 1
        taken = value.pop()
        if taken == "bad":
            raise UndecodableError("it ends with bad")
        return taken


@pytest.fixture(autouse=True)
def _count() -> None:
    Lines.encoded.clear()
    Lines.decoded.clear()


UNUSUAL = [2**70, "\ud800", {"$name": 1}, {"": 1}]


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_what_is_used_up_by_encoding_is_stored_also_beside_what_is_unusual(
    sqlite_place: Place, face: Any, unusual: Any
) -> None:
    store = sqlite_place.store(Lines)
    values = [[number, number] for number in range(5)]
    values[3] = [3, unusual]
    face(store).mset([(str(number), iter(value)) for number, value in enumerate(values)])
    assert len(set(map(id, Lines.encoded))) == len(Lines.encoded)
    assert face(sqlite_place.store(KVStore, collection=store.collection.name)).mget(list("01234")) == values


@pytest.mark.parametrize("wrong", [InvalidValueError("The value is wrong"), TypeError("wrong"), RuntimeError("wrong")])
def test_what_encoding_raises_is_told_and_it_is_not_tried_again(sqlite_place: Place, face: Any, wrong: Any) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise wrong

    store = sqlite_place.store(Lines)
    with pytest.raises(type(wrong), match="wrong") as told:
        face(store).mset([("a", iter([1])), ("b", failing()), ("c", iter([1]))])
    if isinstance(wrong, InvalidValueError):
        assert "key 'b'" in str(told.value)
    with pytest.raises(InvalidValueError, match="key 'a'"):  # the first that is wrong
        face(store).mset([("a", iter([object()])), ("b", failing())])
    assert len(set(map(id, Lines.encoded))) == len(Lines.encoded)
    assert face(store).keys() == []


def test_what_is_used_up_by_decoding_is_read_also_beside_what_is_damaged(sqlite_place: Place, face: Any) -> None:
    store = sqlite_place.store(Lines)
    face(store).mset([(key, iter([key, "bad" if key == "c" else 1])) for key in "abcde"])
    sqlite_place.plant(store.collection.name, "d", "{broken")
    with pytest.raises(DamagedValueError) as told:
        face(store).mget(list("abcde"))
    assert told.value.errors.keys() == {"c", "d"}
    assert told.value.values == {"a": 1, "b": 1, "e": 1}
    assert Lines.decoded == Counter("abce")


def test_documents_beside_a_damaged_one_are_read(sqlite_place: Place, face: Any) -> None:
    docs = sqlite_place.store(DocumentStore)
    good = Document("good", metadata={"at": datetime(2026, 1, 1, tzinfo=UTC), "set": {1}})
    face(docs).mset([("good", good)])
    face(sqlite_place.store(KVStore, collection=docs.collection.name)).mset([("bad", {"no": "document"})])
    with pytest.raises(DamagedValueError) as told:
        face(docs).mget(["good", "bad"])
    assert told.value.errors.keys() == {"bad"}
    assert told.value.values == {"good": good}


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize(
    ("base", "value"), [(KVStore, 1), (KVByteStore, b"1"), (DocumentStore, Document(page_content="1"))]
)
def test_whoever_overrides_how_a_value_is_kept_is_asked_for_each(
    base: Any, value: Any, wraps: bool, count: int
) -> None:
    asked = []

    def encode_value(self: Any, value: Any) -> Any:
        asked.append(value)
        return base.encode_value(self, value)

    own = functools.wraps(base.encode_value)(encode_value) if wraps else encode_value
    with type("Own", (base,), {"encode_value": own})("kv", "memory:") as store:
        store.mset([(f"k{number}", value) for number in range(count)])
        assert store.mget(["k0"]) == [value]
    assert asked == [value] * count


@pytest.mark.parametrize("of", ["instance", "class"])
@pytest.mark.parametrize(
    ("base", "value"), [(KVStore, 1), (KVByteStore, b"1"), (DocumentStore, Document(page_content="1"))]
)
def test_what_is_put_in_the_place_of_encode_value_is_asked_for_each(
    base: Any, value: Any, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with base("kv", "memory:") as store:
        put = Mock(side_effect=store.encode_value)  # which has an attribute of any name
        monkeypatch.setattr(store if of == "instance" else base, "encode_value", put)
        store.mset([(f"k{number}", value) for number in range(3)])
        assert store.mget(["k0"]) == [value]
    assert [call.args for call in put.call_args_list] == [(value,)] * 3

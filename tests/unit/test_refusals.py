"""What is said of a value that is refused: where in it, what it is, and advice that works."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import re
import uuid
from typing import Any

import numpy
import pytest
from langchain_classic.storage import create_kv_docstore
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage

from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv.errors import InvalidValueError, InvalidValueTypeError
from places import Place


def keep(pairs: dict[str, Any], kind: Any = KVStore) -> None:
    with kind("refusals", "memory:refusals") as store:
        store.mset(list(pairs.items()))


def refusal(value: Any) -> str:
    with pytest.raises(InvalidValueError) as caught:
        keep({"k": value})
    with pytest.raises(InvalidValueError, match=re.escape(str(caught.value))):
        keep({"other": 1, "k": value})
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            {"docs": [{"kept": True}, {"kept": numpy.bool_(True)}]},
            "at ['docs'][1]['kept'] an object of type numpy.bool,",
        ),
        ([[{1, 2}]], "holds at [0][0] an object of type set,"),
        (uuid.UUID(int=1), "holds an object of type uuid.UUID,"),
        ({"a": {1: 2}}, "holds at ['a'] an object with a field name of type int"),
        ({"a": {datetime.date.min: 2}}, "a field name of type datetime.date"),
        ({"a": (1, math.inf)}, "holds inf at ['a'][1],"),
        ({"a": [10**5000]}, "holds at ['a'][0] an integer of more digits"),
        ({"n" * 9999: [object()]}, "[0] an object of type object,"),
    ],
)
def test_a_refusal_says_where_in_the_value_and_the_full_type(value: Any, says: str) -> None:
    text = refusal(value)
    assert says in text
    assert len(text) < 500


def test_a_refusal_shows_a_long_path_in_part() -> None:
    value: Any = object()
    for _ in range(100):
        value = [value]
    assert f"at {'[0]' * 10}... an object" in refusal(value)


def within(value: Any) -> Any:
    return {"a": [value]}


@dataclasses.dataclass
class Item:
    n: int


@pytest.mark.parametrize(
    ("value", "advice", "followed"),
    [
        (datetime.datetime(2024, 6, 9), ".isoformat()", lambda value: value.isoformat()),
        (datetime.timedelta(1), ".total_seconds()", lambda value: value.total_seconds()),
        (uuid.UUID(int=1), "with str()", str),
        (decimal.Decimal("1.5"), "float() or str()", float),
        ({1, 2}, "list()", list),
        (numpy.bool_(True), ".tolist()", lambda value: value.tolist()),
        (numpy.int64(3), ".tolist()", lambda value: value.tolist()),
        (numpy.array([[1.0, 2.0]]), ".tolist()", lambda value: value.tolist()),
        (Document(page_content="x").metadata.keys(), "list()", list),
        (HumanMessage("hi"), ".model_dump(mode='json')", lambda value: value.model_dump(mode="json")),
        (Item(1), "dataclasses.asdict()", dataclasses.asdict),
        (enum.Enum("E", "A").A, ".value", lambda value: value.value),
        (pathlib.Path("a"), "with str()", str),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_conversion_that_a_refusal_names_works(value: Any, advice: str, followed: Any) -> None:
    assert advice in refusal(within(value))
    keep({"k": within(followed(value))})


class Own(Document):
    pass


@pytest.mark.parametrize("kind", [Document, Own])
def test_a_document_in_a_store_of_json_or_bytes_is_told_of_the_docstore(kind: type[Document]) -> None:
    document = kind(page_content="x")
    store = KVByteStore("parents", "memory:told-of-the-docstore")
    with pytest.raises(InvalidValueTypeError, match=r"'k'.*: keep Documents in DocumentStore"):
        KVStore("json", "memory:told-of-the-docstore").mset([("k", document)])
    with pytest.raises(InvalidValueTypeError, match=r"'k'.*: keep Documents in DocumentStore"):
        store.mset([("k", document)])  # type: ignore[list-item]

    with DocumentStore("documents", "memory:told-of-the-docstore") as documents:
        documents.mset([("k", document)])
        assert documents.mget(["k"]) == [Document(page_content="x")]
    store.close()


@pytest.mark.parametrize("metadata", [datetime.datetime.min, uuid.UUID(int=1), {1}, [{"deep": decimal.Decimal(1)}]])
@pytest.mark.parametrize("others", [{}, {"other": b"1"}])
def test_a_document_that_langchain_could_not_load_again_is_refused(others: dict[str, bytes], metadata: Any) -> None:
    text = dumps(Document(page_content="bad", metadata={"m": metadata})).encode()
    with pytest.raises(InvalidValueError, match=r"'k' is a Document with metadata of type \w+\.\w+, .*isoformat"):
        keep({**others, "k": text}, KVByteStore)
    keep({**others, "k": b" " + text}, KVByteStore)  # other bytes are nobody's business
    with DocumentStore("documents", "memory:could-not-load") as documents:
        documents.mset([("k", Document(page_content="good", metadata={"m": metadata}))])
        assert documents.mget(["k"]) == [Document(page_content="good", metadata={"m": metadata})]


@pytest.mark.parametrize("metadata", ["x", {"lc": 1, "type": "not_implemented", "id": ["a"]}, [1, None, {"a": 1.5}]])
def test_a_document_that_langchain_can_load_again_is_kept(metadata: Any) -> None:
    document = Document(page_content='{"lc": 1, "type": "not_implemented", "id": ["a"]}', metadata={"m": metadata})
    docstore = create_kv_docstore(KVByteStore("parents", "memory:kept"))
    docstore.mset([("k", document)])
    assert docstore.mget(["k"]) == [document]


@pytest.mark.parametrize("key", ["k", "\u20ac" * 2666, '"' * 100])
def test_a_byte_store_says_its_limit_in_bytes(place: Place, key: str) -> None:
    store = place.store(KVByteStore)
    with pytest.raises(InvalidValueError, match="has 3,000,001 bytes, the limit with this key is") as caught:
        store.mset([(key, bytes(3_000_001))])
    limit = int(re.findall(r"key is ([\d,]+)", str(caught.value))[0].replace(",", ""))
    store.mset([(key, bytes(limit))])
    with pytest.raises(InvalidValueError, match=f"{limit:,}"):
        store.mset([(key, bytes(limit + 1))])

"""Values to documents and back."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import json
import math
import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_kv import limits
from langchain_kv.errors import InvalidKeyError, InvalidValueError, InvalidValueTypeError
from langchain_kv.values import codecs, keys


def round_trip(value: Any) -> Any:
    document = codecs.parse_document(codecs.encode_document("k", value))
    assert isinstance(document, dict)
    assert document["_id"] == "k"
    return codecs.stored_value(document)


def is_plain(value: Any) -> bool:
    return "encoding" not in json.loads(codecs.encode_document("k", value))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),  # lone surrogates included
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=30,
)


@given(json_values)
def test_any_json_value_comes_back_equal(value: Any) -> None:
    assert round_trip(value) == value


@given(st.recursive(st.none() | st.integers(0, 9), lambda inner: st.lists(inner, max_size=2), max_leaves=20))
def test_what_is_written_is_compact_json_in_utf8(value: Any) -> None:
    text = codecs.encode_document("k\u00e9", value)
    assert text == json.dumps({"_id": "k\u00e9", "value": value}, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "value",
    [
        {"$date": 5},
        {"$date": "x"},
        {"$uuid": "x"},
        {"$objectId": "x"},
        {"$binary": "x"},
        {"a": [{"$date": 1}]},
        {"a.b": 1, "c&d": 2, " ": 3, "x$": 4},
        {"x" * 994: 1},
        {"x" * 497: {"y" * 496: 1}},
        10**99,
        -(10**99),
        2**64,
        "\x00",
        1e300,
    ],
)
def test_what_the_data_api_takes_is_stored_as_it_is(value: Any) -> None:
    assert is_plain(value)
    assert round_trip(value) == value


@pytest.mark.parametrize(
    "value",
    [
        {"": 1},
        {"$a": 1},
        {"$ref": "x"},
        {"$date": True},
        {"$date": 1.5},
        {"$date": None},
        {"$date": [1]},
        {"$date": 1, "b": 2},
        [{"a": {"$set": 1}}],
        {"x" * 995: 1},
        {"x" * 497: {"y" * 497: 1}},
        {"\U0001f600" * 498: 1},  # two UTF-16 units each
        10**100,
        "\ud800",
        {"\udfff": 1},
        {"a": ["\ud83d"]},
    ],
)
def test_what_the_data_api_refuses_is_stored_as_marked_text(value: Any) -> None:
    document = json.loads(codecs.encode_document("k", value))
    assert document["encoding"] == "json"
    assert json.loads(document["value"]) == value
    assert round_trip(value) == value


unusual_values = st.sampled_from(
    [
        {"$date": 1},
        {"$set": 1},
        {"": [1.5]},
        {"x" * 994: 1},
        {"x" * 497: {"y" * 497: 1.5}},
        [{"a": math.nan}],
        [1.5, math.inf],
        {"a": uuid.UUID(int=1)},
        {1: 2},
        {"a": {1, 2}},
        10**100,
        [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]],
        [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]],
        [[[[[[[[[[[[[[{"a": 1.5}]]]]]]]]]]]]]],
        [[[[[[[[[[[[[[{"a": {}}]]]]]]]]]]]]]],
    ]
)


@given(st.dictionaries(st.sampled_from("abcd"), json_values | unusual_values))
def test_values_are_encoded_together_as_each_is_alone(pairs: dict[str, Any]) -> None:
    try:
        alone = [(key, codecs.encode_document(key, value)) for key, value in pairs.items()]
    except InvalidValueError as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            codecs.encode_documents(pairs)
    else:
        assert codecs.encode_documents(pairs) == alone


def test_a_large_document_among_others_is_refused_by_its_key() -> None:
    pairs = {"a": 1, "b": "x" * limits.DOCUMENT_MAX_UTF16, "c": 2}
    with pytest.raises(InvalidValueError, match="'b'"):
        codecs.encode_documents(pairs)


def nested(levels: int, *, objects: bool = False) -> Any:
    value: Any = {} if objects else []
    for _ in range(levels - 1):
        value = {"a": value} if objects else [value]
    return value


@pytest.mark.parametrize("text", ["", "QQ==", "QUI=", "QUJD", "QUJD=", "QUJDRA=="])
def test_base64_is_read_as_the_standard_library_reads_it(text: str) -> None:
    assert codecs.bytes_from_text(text) == base64.b64decode(text, validate=True)


@pytest.mark.parametrize("text", ["Q", "QUJ", "QU JD", "QU\nJD", "QUJD*", "=", "QUI=QUI=", "\xff", "-_-_", "\ud800"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(codecs.UndecodableError, match="not base64"):
        codecs.bytes_from_text(text)


@pytest.mark.parametrize("objects", [True, False])
def test_fifteen_levels_are_plain_and_deeper_ones_are_text(objects: bool) -> None:
    assert is_plain(nested(15, objects=objects))
    assert not is_plain(nested(16, objects=objects))
    deepest = nested(codecs.VALUE_MAX_DEPTH, objects=objects)
    assert round_trip(deepest) == deepest
    with pytest.raises(InvalidValueError, match=r"'k'.*200 levels"):
        codecs.encode_document("k", nested(codecs.VALUE_MAX_DEPTH + 1, objects=objects))


def test_a_value_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidValueError, match="holds itself"):
        codecs.encode_document("k", ring)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Ratio(float):
    pass


class Bag(dict):  # type: ignore[type-arg]
    pass


def test_subclasses_are_stored_by_their_base_value_and_tuples_as_lists() -> None:
    assert round_trip([Colour.RED, Level.HIGH, Ratio(1.5), Bag(a=Bag(b=(1, 2)))]) == [
        "red",
        3,
        1.5,
        {"a": {"b": [1, 2]}},
    ]
    assert round_trip({Colour.RED: 1}) == {"red": 1}
    assert round_trip((1, (2,))) == [1, [2]]


class Plain(enum.Enum):
    A = "a"


@pytest.mark.parametrize(
    "value",
    [
        {1: 2},
        {None: 1},
        {1, 2},
        b"x",
        bytearray(b"x"),
        uuid.uuid4(),
        datetime.datetime(2026, 1, 1),
        datetime.date(2026, 1, 1),
        decimal.Decimal(1),
        object(),
        Plain.A,
        1j,
        range(3),
        [1.0, uuid.uuid4()],
        [1.0, decimal.Decimal(2)],
        {"a": {"b": {3}}},
    ],
)
def test_what_is_not_json_is_a_type_error_that_names_the_key(value: Any) -> None:
    with pytest.raises(TypeError, match="'the key'") as caught:
        codecs.encode_document("the key", value)
    assert isinstance(caught.value, InvalidValueTypeError)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [1.0, math.nan],
        [math.inf, -math.inf],
        {"a": [0.5] * 100 + [math.inf]},
        Ratio("nan"),
        [1e308, 1e308, math.nan],
        [True, math.nan],
        (1.5, math.inf),
        {"": math.nan},
    ],
)
def test_nan_and_infinities_are_refused_naming_the_key(value: Any) -> None:
    with pytest.raises(InvalidValueError, match="'the key'"):
        codecs.encode_document("the key", value)


def test_lists_whose_sum_overflows_are_not_taken_for_infinite() -> None:
    assert round_trip([1e308] * 3) == [1e308] * 3
    assert round_trip([1.5, 10**400]) == [1.5, 10**400]
    assert round_trip([1.5, True, 2, "x", None, [0.1]]) == [1.5, True, 2, "x", None, [0.1]]


def test_an_integer_too_long_for_python_to_print_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="hexadecimal"):
        codecs.encode_document("k", 10**5000)


def test_the_document_limit_counts_utf16_units_of_the_whole_document() -> None:
    around = len('{"_id":"k","value":""}')
    room = limits.DOCUMENT_MAX_UTF16 - around
    codecs.encode_document("k", "x" * room)
    codecs.encode_document("k", "\u20ac" * room)  # three bytes, one unit each
    with pytest.raises(InvalidValueError, match=r"'k'.*4,000,001.*4,000,000"):
        codecs.encode_document("k", "x" * (room + 1))
    codecs.encode_document("k", "\U0001f600" * (room // 2))
    with pytest.raises(InvalidValueError):
        codecs.encode_document("k", "\U0001f600" * (room // 2 + 1))


@given(st.binary())
def test_bytes_come_back_equal(value: bytes) -> None:
    for form in (value, bytearray(value), memoryview(value)):
        document = codecs.parse_document(codecs.encode_bytes_document("k", form))
        assert isinstance(document, dict)
        assert codecs.bytes_from_text(codecs.stored_value(document)) == value


def test_the_byte_limit_that_is_promised_holds_for_every_key() -> None:
    key = "\u20ac" * 2666
    keys.check_key(key)
    codecs.encode_bytes_document(key, bytes(limits.BYTES_VALUE_MAX))
    with pytest.raises(InvalidValueError, match="the limit with this key is"):
        codecs.encode_bytes_document("k", bytes(3_000_000))


@pytest.mark.parametrize("value", ["text", [1], 5, object()])
def test_a_byte_store_refuses_all_but_bytes(value: Any) -> None:
    with pytest.raises(TypeError, match="'the key'"):
        codecs.encode_bytes_document("the key", value)
    with pytest.raises(TypeError):
        codecs.bytes_to_text(value)


@pytest.mark.parametrize("text", ["a", "YQ", "YQ==x", "Y Q==", "YQ=\n=", "\u00e9", "YQ===", "-_=="])
def test_base64_is_read_strictly(text: str) -> None:
    with pytest.raises(codecs.UndecodableError):
        codecs.bytes_from_text(text)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("", "empty"),
        (5, "int"),
        (None, "NoneType"),
        (b"a", "bytes"),
        ("\ud800", "surrogate"),
        ("x" * 8001, "8,001"),
        ("\u20ac" * 2667, "8,001"),
    ],
)
def test_a_bad_key_is_refused_with_the_reason(key: Any, word: str) -> None:
    with pytest.raises(InvalidKeyError, match=word):
        keys.check_key(key)


@pytest.mark.parametrize("key", ["a", "x" * 8000, "\u20ac" * 2666, "\x00", "$a", "a.b/c d", "\U0010ffff", "null", "5"])
def test_any_other_text_is_a_key(key: str) -> None:
    assert keys.check_key(key) == key


def test_a_subclass_of_str_becomes_an_exact_str() -> None:
    assert type(keys.check_key(Colour.RED)) is str
    assert keys.check_key(Colour.RED) == "red"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"5", b'{"a":NaN}', b'{"a":1}x', b"\xff\xfe", b'{"a":Infinity}', b"[" * 5000]
)
def test_a_text_that_is_no_document_is_damaged_and_not_an_exception(body: bytes) -> None:
    assert isinstance(codecs.parse_document(body), codecs.Damaged)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1E+400", math.inf),
        (b'"\\ud800"', "\ud800"),
        (b"1234567890123456789012345678901234567890", 1234567890123456789012345678901234567890),
        (b"-18446744073709551617", -18446744073709551617),
        (b"1E+2", 100.0),
        (b"[1e400, 123456789012345678901]", [math.inf, 123456789012345678901]),
    ],
)
def test_what_only_some_readers_take_is_read(text: bytes, value: Any) -> None:
    document = codecs.parse_document(b'{"_id":"k","value":%b}' % text)
    assert document == {"_id": "k", "value": value}
    assert type(document["value"]) is type(value)  # type: ignore[index]


@pytest.mark.parametrize(
    "document",
    [
        {"value": "1", "encoding": "zip"},
        {"value": 1, "encoding": "json"},
        {"value": "{", "encoding": "json"},
        {"value": "NaN", "encoding": "json"},
        {"value": "1", "encoding": None},
        {"value": "1", "encoding": {"a": 1}},
        {"encoding": "json"},
    ],
)
def test_another_marker_is_an_error_and_not_a_guess(document: Any) -> None:
    with pytest.raises(codecs.UndecodableError):
        codecs.stored_value(document)

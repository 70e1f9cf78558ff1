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

from langchain_kv import KVStore, limits
from langchain_kv.backends.base import Damaged, Found, Kind, Record
from langchain_kv.backends.documents import document_of, encoded, found_in
from langchain_kv.errors import InvalidKeyError, InvalidValueError, InvalidValueTypeError
from langchain_kv.runtime.slices import whole
from langchain_kv.stores import coding
from langchain_kv.values import codecs, keys, plain
from langchain_kv.values.plain import VALUE_MAX_DEPTH


def encode_document(key: str, value: Any) -> bytes:
    return document_of(codecs.encode_json(key, value))


def encode_bytes_document(key: str, value: Any) -> bytes:
    return document_of(Record(key, codecs.exact_bytes(value, key), Kind.BYTES))


def same(value: Any) -> Any:
    return value


def encode_together(pairs: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Encode as a store and a backend do: the usual values of a batch in one pass."""
    return encoded(whole(coding.encode_pairs(same, pairs, None)))


def value_in(document: bytes) -> Any:
    found = found_in(document)
    assert isinstance(found, Found)
    return found.value


def round_trip(value: Any) -> Any:
    document = encode_document("k", value)
    assert json.loads(document)["_id"] == "k"
    return value_in(document)


def is_plain(value: Any) -> bool:
    return "encoding" not in json.loads(encode_document("k", value))


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
    text = encode_document("k\u00e9", value)
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
    document = json.loads(encode_document("k", value))
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


@pytest.mark.parametrize(("slice_bytes", "level_part"), [(codecs.SLICE_BYTES, 10_000), (40, 2)])
@given(pairs=st.dictionaries(st.sampled_from("abcdefgh"), json_values | unusual_values))
def test_values_are_encoded_together_as_each_is_alone(slice_bytes: int, level_part: int, pairs: dict[str, Any]) -> None:
    alone: list[tuple[str, bytes]] = []
    refusal: InvalidValueError | None = None
    try:
        for key, value in pairs.items():
            alone.append((key, encode_document(key, value)))
    except InvalidValueError as error:
        refusal = error
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs, "SLICE_BYTES", slice_bytes)
        patch.setattr(coding, "SLICE_BYTES", slice_bytes)
        patch.setattr(plain, "_LEVEL_PART", level_part)
        if refusal is not None:
            with pytest.raises(type(refusal), match=re.escape(str(refusal))):
                encode_together(pairs)
        else:
            assert encode_together(pairs) == alone


@pytest.mark.parametrize(
    "value",
    [
        [{"name": number} for number in range(100_000)],
        list(range(500_000)),
        {str(number): [None, True] for number in range(100_000)},
    ],
)
def test_one_large_value_is_looked_at_in_parts(value: Any) -> None:
    steps = coding.encode_pairs(same, {"a": value}, None)
    assert len(list(steps)) >= 10
    ((_, document),) = encode_together({"a": value})
    assert json.loads(document) == {"_id": "a", "value": value}


@given(
    st.dictionaries(
        st.text("abc", min_size=1), st.integers(-9, 9) | st.text("ab") | st.lists(st.floats(0, 1)), min_size=1
    )
)
def test_usual_values_are_encoded_in_one_pass(pairs: dict[str, Any]) -> None:
    values, error = codecs.encode_run(pairs.items(), same)
    assert (values, error) == (list(pairs.values()), None)
    assert whole(plain.are_plain(values))
    records = codecs.write_run(list(pairs), values, None)
    assert records == [codecs.encode_json(key, value) for key, value in pairs.items()]


def nested(depth: int, value: Any = 1) -> Any:
    for _ in range(depth):
        value = (value,)
    return value


def contained_in_itself() -> Any:
    one: list[Any] = []
    one += [(nested(3_000, one),) for _ in range(10)]
    return one


@pytest.mark.parametrize("value", [nested(5_000), [nested(3_000)], {"a": nested(10_000, [])}, contained_in_itself()])
@pytest.mark.parametrize("others", [0, 3])
def test_tuples_nested_without_end_are_refused(value: Any, others: int) -> None:
    # Each in a process of its own would tell a crash from an error; here a crash ends the whole run.
    with (
        KVStore("kv", f"memory:nested{others}") as store,
        pytest.raises(InvalidValueError, match=r"'deep'.*200 levels"),
    ):
        store.mset([*((f"k{number}", [1]) for number in range(others)), ("deep", value)])


@pytest.mark.parametrize("name", [1, None, b"a", ("a",), 1.5])
@pytest.mark.parametrize("others", [0, 3])
def test_a_name_that_is_no_text_is_refused(name: Any, others: int) -> None:
    with KVStore("kv", f"memory:names{others}") as store, pytest.raises(InvalidValueTypeError, match="'odd'"):
        store.mset([*((f"k{number}", [1]) for number in range(others)), ("odd", {name: {"b": 1}})])


@pytest.mark.parametrize("expires_at_ms", [0, 1, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_moment_of_expiry_comes_back_beside_every_kind(kind: Kind, expires_at_ms: int) -> None:
    document = document_of(Record("k", b'"a"', kind, expires_at_ms))
    found = found_in(document)
    assert isinstance(found, Found)
    assert found.expires_at_ms == expires_at_ms
    assert json.loads(document)["expires_at"] == {"$date": expires_at_ms}


def test_a_large_document_among_others_is_refused_by_its_key() -> None:
    pairs = {"a": 1, "b": "x" * limits.DOCUMENT_MAX_UTF16, "c": 2}
    with pytest.raises(InvalidValueError, match="'b'"):
        encode_together(pairs)


def nested(levels: int, *, objects: bool = False) -> Any:
    value: Any = {} if objects else []
    for _ in range(levels - 1):
        value = {"a": value} if objects else [value]
    return value


@pytest.mark.parametrize("text", ["", "QQ==", "QUI=", "QUJD", "QUJDRA=="])
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
    deepest = nested(VALUE_MAX_DEPTH, objects=objects)
    assert round_trip(deepest) == deepest
    with pytest.raises(InvalidValueError, match=r"'k'.*200 levels"):
        encode_document("k", nested(VALUE_MAX_DEPTH + 1, objects=objects))


def test_a_value_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidValueError, match="holds itself"):
        encode_document("k", ring)


class Caller(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Ratio(float):
    pass


class Bag(dict):  # type: ignore[type-arg]
    pass


def test_subclasses_are_stored_by_their_base_value_and_tuples_as_lists() -> None:
    assert round_trip([Caller.RED, Level.HIGH, Ratio(1.5), Bag(a=Bag(b=(1, 2)))]) == [
        "red",
        3,
        1.5,
        {"a": {"b": [1, 2]}},
    ]
    assert round_trip({Caller.RED: 1}) == {"red": 1}
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
        encode_document("the key", value)
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
        encode_document("the key", value)


def test_lists_whose_sum_overflows_are_not_taken_for_infinite() -> None:
    assert round_trip([1e308] * 3) == [1e308] * 3
    assert round_trip([1.5, 10**400]) == [1.5, 10**400]
    assert round_trip([1.5, True, 2, "x", None, [0.1]]) == [1.5, True, 2, "x", None, [0.1]]


def test_an_integer_too_long_for_python_to_print_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="hexadecimal"):
        encode_document("k", 10**5000)


def test_the_document_limit_counts_utf16_units_of_the_whole_document() -> None:
    around = len('{"_id":"k","value":""}')
    room = limits.DOCUMENT_MAX_UTF16 - around
    encode_document("k", "x" * room)
    encode_document("k", "\u20ac" * room)  # three bytes, one unit each
    with pytest.raises(InvalidValueError, match=r"'k'.*4,000,001.*4,000,000"):
        encode_document("k", "x" * (room + 1))
    encode_document("k", "\U0001f600" * (room // 2))
    with pytest.raises(InvalidValueError):
        encode_document("k", "\U0001f600" * (room // 2 + 1))


@given(st.binary())
def test_bytes_come_back_equal(value: bytes) -> None:
    for form in (value, bytearray(value), memoryview(value)):
        assert codecs.bytes_from_text(value_in(encode_bytes_document("k", form))) == value


def test_the_byte_limit_that_is_promised_holds_for_every_key() -> None:
    key = "\u20ac" * 2666
    keys.check_key(key)
    encode_bytes_document(key, bytes(limits.BYTES_VALUE_MAX))
    with pytest.raises(InvalidValueError, match="the limit with this key is"):
        encode_bytes_document("k", bytes(3_000_000))


@pytest.mark.parametrize("value", ["text", [1], 5, object()])
def test_a_byte_store_refuses_all_but_bytes(value: Any) -> None:
    with pytest.raises(TypeError, match="'the key'"):
        encode_bytes_document("the key", value)


@pytest.mark.parametrize(
    "text", ["a", "YQ", "YQ==x", "Y Q==", "YQ=\n=", "\u00e9", "YQ===", "-_==", "QUJD=", "QUJD==", "QUJDQQ="]
)
def test_base64_is_read_strictly_with_every_python(text: str) -> None:
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
    assert type(keys.check_key(Caller.RED)) is str
    assert keys.check_key(Caller.RED) == "red"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"5", b'{"a":NaN}', b'{"a":1}x', b"\xff\xfe", b'{"a":Infinity}', b"[" * 5000]
)
def test_a_text_that_is_no_document_is_damaged_and_not_an_exception(body: bytes) -> None:
    assert isinstance(found_in(body), Damaged)


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
    found = value_in(b'{"_id":"k","value":%b}' % text)
    assert found == value
    assert type(found) is type(value)


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
    assert isinstance(found_in(json.dumps(document).encode()), Damaged)

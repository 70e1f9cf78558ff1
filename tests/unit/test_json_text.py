"""Reading and writing JSON as the Data API does."""

from __future__ import annotations

import json
import random
import sys
from decimal import Decimal

import pytest

from langchain_kv.errors import DataAPIError
from langchain_kv.values.json_text import NESTING_MAX, is_rewritten, read, utf16_length, write


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("1.0", "1"),
        ("100.0", "1E+2"),
        ("1500.0", "1.5E+3"),
        ("1e-7", "1E-7"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1E-7"),
        ("1.10", "1.1"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("0e5", "0"),
        ("1E400", "1E+400"),
        ("2.50e10", "2.5E+10"),
        ("12345678901234567.0", "12345678901234567"),
        ("9007199254740993", "9007199254740993"),
        ("-123456789012345678901234567890", "-123456789012345678901234567890"),
        ("0." + "1" * 99, "0." + "1" * 99),
        ("1" * 99 + ".5", "1" * 99 + ".5"),
        ("-" + "9" * 100, "-" + "9" * 100),
    ],
)
def test_numbers_keep_their_value_and_get_the_data_apis_spelling(sent: str, kept: str) -> None:
    assert write(read(sent.encode())) == kept.encode()
    assert write(read(f'{{"a":[{sent}]}}'.encode())) == f'{{"a":[{kept}]}}'.encode()


@pytest.mark.parametrize("sent", ["9" * 101, "-" + "9" * 101, "0." + "1" * 100, "1e" + "0" * 100, "1" * 5000])
def test_a_number_of_over_100_digits_has_an_error_of_its_own(sent: str) -> None:
    assert code_of(f'{{"a":{sent}}}'.encode()) == "SHRED_DOC_LIMIT_VIOLATION"


def test_100_digits_with_all_signs_are_within_the_limit() -> None:
    assert read(("-" + "1" * 50 + "." + "1" * 48 + "e+11").encode()).is_finite()


@pytest.mark.parametrize("sent", ["1e99999999999", "1e9999999999999999999999", "-5e-99999999999"])
def test_an_exponent_that_java_cannot_hold_is_no_json(sent: str) -> None:
    assert code_of(sent.encode()) == "REQUEST_NOT_JSON"


@pytest.mark.parametrize(
    "sent",
    [
        b"{", b"[1,]", b'{"a":1,}', b"NaN", b"[Infinity]", b"-Infinity", b"[01]", b"[1.]", b"[.5]", b"[+1]", b"[1e]",
        b"'a'", b'"\t"', b'"a', b"undefined", b"/*c*/1", b"[1 // c\n]", b"\xff", b'"\xed\xa0\x80"', b'"\xc0\x80"',
        b'{"a":1,"a":2}', b'{"b":[{"a":1,"c":2,"a":1}]}', b'{"a":1,"\\u0061":2}', b"{1:2}", b'"\\x"', b"",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(sent: bytes) -> None:
    assert code_of(sent) == "REQUEST_NOT_JSON"


def test_a_name_may_be_used_in_several_objects() -> None:
    assert read(b'{"a":{"a":1},"b":[{"a":1},{"a":2}]}') == {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}


@pytest.mark.parametrize("sent", [b"\xef\xbb\xbf{}", b" \r\n\t{} ", b"{}x", b"{}{}", b"{}]"])
def test_a_mark_blanks_and_text_after_the_value_are_ignored(sent: bytes) -> None:
    assert read(sent) == {}


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_nesting_over_the_guard_is_refused(opened: str, closed: str) -> None:
    levels = NESTING_MAX + 1
    assert code_of((opened * levels + "1" + closed * levels).encode()) == "SHRED_DOC_LIMIT_VIOLATION"


def test_brackets_in_texts_and_beside_each_other_are_no_nesting() -> None:
    texts = json.dumps(["[" * 1500, '"[' * 700, "\\[" * 900, "\\\\"]).encode()
    assert read(texts) == json.loads(texts)
    assert len(read(b"[" + b"[{}]," * 3000 + b"1]")) == 3001


def test_very_deep_input_is_refused_without_a_crash() -> None:
    for size in (10_000, 1_000_000):
        assert code_of(b"[" * size) == "SHRED_DOC_LIMIT_VIOLATION"


def test_deep_input_within_the_guard_is_read_or_refused_from_a_deep_stack_too() -> None:
    def descend(levels: int) -> str | None:
        return descend(levels - 1) if levels else code_of(b"[" * 900 + b"]" * 900)

    assert descend(sys.getrecursionlimit() // 2) in (None, "SHRED_DOC_LIMIT_VIOLATION")


def test_text_is_written_raw_with_the_least_escapes() -> None:
    assert (
        write(read(b'"\\u00e9\\ud83d\\ude00\\u2028\\u007f\\/\\u0000\\n\\""'))
        == '"é😀\u2028\x7f/\\u0000\\n\\""'.encode()
    )


def test_half_of_a_surrogate_pair_is_read_but_not_written() -> None:
    with pytest.raises(DataAPIError) as caught:
        write(read(b'["\\ud800"]'))
    assert caught.value.code == "UNEXPECTED_DRIVER_ERROR"


def test_a_number_that_becomes_an_integer_makes_a_document_rewritten() -> None:
    assert is_rewritten(read(b'{"a":[{"b":1.0}]}'))
    assert is_rewritten(read(b"-0.0"))
    assert not is_rewritten(read(b'{"a":[1,1.5,100.0,1e3,"1.0",null,true]}'))


def test_utf16_units_count_astral_characters_twice() -> None:
    assert utf16_length("aé😀".encode()) == 4


def test_random_values_come_back_equal() -> None:
    seed = random.randrange(2**32)
    source = random.Random(seed)

    def value(depth: int) -> object:
        kind = source.randrange(8 if depth else 6)
        if kind == 6:
            return [value(depth - 1) for _ in range(source.randrange(4))]
        if kind == 7:
            return {"".join(source.choices('ab"\\é😀{[:,', k=3)) + str(n): value(depth - 1) for n in range(3)}
        return [None, True, source.getrandbits(90) - 2**89, source.gauss(0, 1e9), '"\\{[]}é😀\n', False][kind]

    for _ in range(200):
        sent = value(4)
        text = json.dumps(sent, ensure_ascii=source.random() < 0.5).encode()
        assert json.loads(write(read(text))) == sent, f"seed {seed}"
        assert write(read(write(read(text)))) == write(read(text)), f"seed {seed}"


def test_no_error_holds_the_text_it_is_about() -> None:
    for text in (b'{"secret', b'["secret",]', b'{"a":"secret","b":NaN}', b'"secret\xff"'):
        with pytest.raises(DataAPIError) as caught:
            read(text)
        assert "secret" not in str(caught.value)


def test_decimals_are_exact() -> None:
    assert read(b"0.1") == Decimal("0.1")
    assert read(b"3.141592653589793238462643383279") == Decimal("3.141592653589793238462643383279")


def code_of(text: bytes) -> str | None:
    try:
        read(text)
    except DataAPIError as error:
        return error.code
    return None

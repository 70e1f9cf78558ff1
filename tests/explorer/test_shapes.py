"""What values look like on the explorer's page."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps

from langchain_kv.backends.base import Damaged, Found, Kind
from langchain_kv.embeddings.vectors import pack
from langchain_kv.explorer.shapes import NUMBERS_MAX, SHOWN_MAX, fingerprint, json_text, payload_of, shown

NUMBERS = [0.25, -0.5, 1.0, 2.0, -2.0]
DOCUMENT = {"page_content": "A text.", "metadata": {"page": 1}, "id": None}


def raw(value: bytes) -> Found:
    return Found(value, Kind.BYTES)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (Found({"a": 1}), "json"),
        (Found(None), "json"),
        (Found([1, 2, 3, 4]), "json"),  # whole numbers alone are a list of numbers
        (Found([0.5, 1.5]), "json"),  # too few
        (Found([0.5, True, 1, 2]), "json"),
        (Found([0.5, 10**400, 1, 2]), "json"),
        (Found("a text"), "text"),
        (Found('{"a": 1}'), "json"),
        (Found('"a"'), "text"),
        (Found(base64.b64encode(pack([NUMBERS])[0]).decode()), "vector"),  # type: ignore[arg-type]
        (Found(base64.b64encode(dumps(Document("A text.")).encode()).decode()), "document"),
        (Found(base64.b64encode(bytes(range(40))).decode()), "text"),
        (Found(NUMBERS), "vector"),
        (Found(DOCUMENT), "document"),
        (Found({"page_content": 1, "metadata": {}}), "json"),
        (Found({"page_content": "a", "metadata": []}), "json"),
        (raw(pack([NUMBERS])[0]), "vector"),  # type: ignore[arg-type]
        (raw(json.dumps(NUMBERS).encode()), "vector"),
        (raw(dumps(Document("A text.", metadata={"page": 1})).encode()), "document"),
        (raw(b'{"a": 1}'), "json"),
        (raw(b"{no json"), "text"),
        (raw("Umlaute: \u00e4\n".encode()), "text"),
        (raw(b""), "text"),
        (raw(b"\x00\x01"), "bytes"),
        (raw(b"\xff\xfe"), "bytes"),
        (raw(b"a\x1b[31m"), "bytes"),
        (raw(b"[" * 100_000), "text"),
        (raw('["\u00e9"]'.encode("utf-16-le")), "bytes"),  # which json.loads reads, too
        (raw('["\u00e9"]'.encode("utf-32")), "bytes"),
        (raw(b'{"a":"\xed\xa0\x80"}'), "bytes"),  # half of a surrogate pair
        (raw(b'\xef\xbb\xbf{"a":1}'), "bytes"),
        (Found([Decimal("0.12345678901234567890123"), 0.5, 1, 2]), "vector"),
        (Damaged("it is not JSON"), "damaged"),
    ],
    ids=repr,
)
def test_a_value_is_shown_as_what_it_is(value: Any, shape: str) -> None:
    assert shown(value)["shape"] == shape
    json.loads(json_text(shown(value)))


def test_a_vector_comes_with_its_figures() -> None:
    found = shown(raw(pack([NUMBERS])[0]))  # type: ignore[arg-type]

    assert found["numbers"] == NUMBERS
    assert (found["count"], found["number_type"], found["least"], found["greatest"]) == (5, "float32", -2.0, 2.0)
    assert found["mean"] == pytest.approx(0.15)
    assert found["norm"] == pytest.approx(sum(number**2 for number in NUMBERS) ** 0.5)


def test_a_vector_of_huge_numbers_has_no_mean_and_does_no_harm() -> None:
    found = shown(Found([1.5e308] * 8))

    assert found["mean"] is None
    assert json.loads(json_text(found))["norm"] is None


def test_a_long_vector_is_cut() -> None:
    found = shown(Found([0.5] * (NUMBERS_MAX + 1)))

    assert (found["count"], len(found["numbers"]), found["is_cut"]) == (NUMBERS_MAX + 1, NUMBERS_MAX, True)


@pytest.mark.parametrize(
    "value",
    [Found("a" * SHOWN_MAX + "b"), Found({"a": "b" * SHOWN_MAX}), raw(b"a" * (SHOWN_MAX + 1)), raw(b"\x00" * 10**6)],
    ids=["text", "JSON", "text bytes", "bytes"],
)
def test_large_values_are_cut_and_downloaded_whole(value: Found) -> None:
    found = shown(value)

    assert found["is_cut"]
    assert found["size_bytes"] == len(payload_of(value))
    assert len(json_text(found)) < 2 * SHOWN_MAX


def test_a_document_of_a_large_text_is_cut_and_its_metadata_are_there() -> None:
    found = shown(Found({**DOCUMENT, "page_content": "a" * (SHOWN_MAX + 1)}))

    assert (len(found["content"]), found["metadata"], found["is_cut"]) == (SHOWN_MAX, '{"page":1}', True)


def test_numbers_and_surrogates_are_told_as_they_are_kept() -> None:
    assert shown(Found({"n": 10**40, "f": 0.1}))["text"] == '{"n":1' + "0" * 40 + ',"f":0.1}'
    assert json.loads(json_text(shown(Found("\ud800"))))["text"] == "\ud800"
    exact = Decimal("1.00000000000000000001")
    assert shown(Found({"n": exact, "e": Decimal("1E+400")}))["text"] == '{"n":1.00000000000000000001,"e":1E+400}'
    document = shown(Found({**DOCUMENT, "metadata": {"n": exact}}))
    assert document["metadata"] == '{"n":1.00000000000000000001}'


@pytest.mark.parametrize(
    ("text", "is_base64"),
    [("word", False), ("AP8=", True), ("A" * 16, True), ("not base64, is it", False), ("=", False)],
)
def test_a_text_that_may_be_bytes_can_be_decoded(text: str, is_base64: bool) -> None:
    found = shown(Found(text))

    assert (found["shape"], found["text"], found.get("is_base64", False)) == ("text", text, is_base64)


def test_bytes_come_as_base64() -> None:
    assert base64.b64decode(shown(raw(b"\x00\xff"))["base64"]) == b"\x00\xff"


def test_values_differ_in_their_fingerprint_by_kind_expiry_and_content() -> None:
    values = [Found(1), Found(2), Found(1, Kind.TEXT), Found(1, Kind.JSON, 5), raw(b"1")]

    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(Found({"a": 1})) == fingerprint(Found({"a": 1}))

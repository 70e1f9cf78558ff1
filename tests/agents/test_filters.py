"""What of a filter is known of the text of every value that passes it, so that others need not be parsed."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_kv import Kind, Record
from langchain_kv.backends.documents import document_of
from langchain_kv.langgraph.filters import compiled, held_by

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab"\\é\ud800'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text("ab", min_size=1), JSON, min_size=1, max_size=3))
def test_a_value_passes_the_filter_that_it_is_and_its_document_holds_what_is_known(value: dict[str, Any]) -> None:
    wanted = {name: {"$eq": each} if isinstance(each, dict) else each for name, each in value.items()}
    passes = compiled(wanted)
    assert passes is not None
    assert passes(value)
    for payload in (
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace"),
    ):
        for kind in (Kind.JSON, Kind.TEXT):
            document = document_of(Record("k", payload, kind))
            held = held_by(wanted)
            assert held is None or any(held.text.encode() + end.encode() in document for end in held.ends)


@pytest.mark.parametrize(
    "wanted", [None, {}, {"a": 1}, {"a": "\u00e9"}, {"a": "b c"}, {"a": {"$eq": "b"}}, {"a": ""}], ids=str
)
def test_of_what_may_be_spelt_otherwise_nothing_is_known(wanted: Any) -> None:
    assert held_by(wanted) is None


def test_the_longest_text_is_looked_for() -> None:
    held = held_by({"a": "b", "c": "defg", "h": 1})
    assert held is not None
    assert held.text.encode() in orjson.dumps({"c": "defg"})
    assert held.text.encode() not in orjson.dumps({"c": "xdefg"})

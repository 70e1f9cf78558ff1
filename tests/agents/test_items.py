"""Items in the text of documents are those that the documents keep."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from langgraph.store.base import GetOp, SearchItem

from langchain_kv.backends.documents import found_in
from langchain_kv.langgraph.items import damage_of, item_of, search_item_of

KEY = "\x1fa\x1fb\x1ek"
MOMENTS = [
    "2026-01-02T03:04:05.000006+00:00",
    "2026-01-02T03:04:05Z",
    "2026-01-02 03:04:05.5+01:00",
    "2026-01-02T03:04:05-23:59",
    "2026-01-02T03:04:05",
    "2026-01-02",
    "20260102T030405",
    "2026-01-02T03:04:05.123456789+00:00",
    "0001-01-01T00:00:00+00:00",
]
VALUES: list[Any] = [
    {},
    {"a": 2**70, "b": -1.5e300, "c": 1e22, "d": [None, True, "\ud800"], "": {"": {}}},
    {"value": 1, "updated_at": "x", "created_at": None},
]


def _text(item: Any, **more: Any) -> bytes:
    return json.dumps({"_id": KEY, "value": item, **more}, separators=(",", ":")).encode()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_item_is_the_same_from_the_text_and_from_what_is_parsed(value: Any, moment: str) -> None:
    created = "2020-02-29T23:59:59.999999+00:00"
    text = _text({"value": value, "ttl": 5, "updated_at": moment, "vectors": ["AAAA"], "created_at": created})
    found: list[SearchItem] = []
    for stored in (text, found_in(text)):
        assert damage_of(stored) is None
        found.append(search_item_of(KEY, stored, 0.5))
        item = item_of(GetOp(("a", "b"), "k"), stored)
        assert (item.namespace, item.key, item.value) == (("a", "b"), "k", value)
        assert (item.created_at, item.updated_at) == (datetime.fromisoformat(created), datetime.fromisoformat(moment))
    assert found[0].dict() == found[1].dict()
    assert found[0].updated_at.utcoffset() == found[1].updated_at.utcoffset()


GOOD = {"value": {}, "updated_at": MOMENTS[0], "created_at": MOMENTS[0]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"_id":"k"}',
        _text(None),
        _text([GOOD]),
        _text("{}"),
        *[_text({**GOOD, "value": value}) for value in (None, [], "x", 5)],
        *[_text({**GOOD, name: at}) for name in ("updated_at", "created_at") for at in ("x", "", None, 5, 1767323045)],
        *[_text({name: GOOD[name] for name in GOOD if name != left}) for left in GOOD],
        _text(GOOD, encoding="json"),
        _text(GOOD, encoding="unheard of"),
        _text(GOOD, encoding=None),
        b'{"_id":"k","value":' + b'{"value":' * 3_000 + b"1" + b"}" * 3_001,
    ],
)
def test_what_is_no_item_is_none_in_the_text_either(text: bytes) -> None:
    for stored in (text, found_in(text)):
        with pytest.raises((AttributeError, TypeError, ValueError, LookupError)):
            item_of(GetOp(("a",), "k"), stored)
        assert damage_of(stored) == damage_of(found_in(text)) != None  # noqa: E711


def test_a_text_that_is_kept_as_text_is_read_as_what_it_says() -> None:
    item = {"value": {"$x": 1}, "updated_at": MOMENTS[0], "created_at": MOMENTS[0]}
    text = _text(json.dumps(item), encoding="json")
    assert search_item_of(KEY, text, None).dict() == search_item_of(KEY, found_in(text), None).dict()
    assert search_item_of(KEY, text, None).value == {"$x": 1}

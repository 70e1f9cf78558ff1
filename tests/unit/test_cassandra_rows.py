"""How documents are spelt in the rows of a cluster; without one."""

from __future__ import annotations

import json

import pytest

from langchain_kv.engines.cassandra.rows import body_of, doc_json


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        ("\x0f\x1f\x00\x12\n\b\x7f", r"\u000F\u001F\u0000\u0012\n\b" + "\x7f"),
        ("\\u001f", r"\\u001f"),
        ("\\\x1f", r"\\\u001F"),
        ("\\\\u000b\x0b", r"\\\\u000b\u000B"),
        ("é\u2028", "é\u2028"),
    ],
)
@pytest.mark.parametrize("order", ["as stores write it", "another"])
@pytest.mark.parametrize("key", ["k", "k\x1b"])
def test_control_characters_are_spelt_as_the_data_api_spells_them(key: str, value: str, spelt: str, order: str) -> None:
    document = {"_id": key, "value": value} if order == "as stores write it" else {"value": value, "_id": key}
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    text = doc_json((1, key), body)
    assert text == f'{{"_id":"{key if key == "k" else "k" + chr(92) + "u001B"}","value":"{spelt}"}}'
    assert json.loads(text) == document
    assert body_of((1, key), text) == text.encode()

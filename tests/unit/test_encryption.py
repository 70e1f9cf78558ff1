"""Encryption of records: its form, and everything that it must refuse."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from langchain_kv.backends.base import Damaged, Found, Kind, Record
from langchain_kv.backends.encryption import Encrypted, Encryption
from langchain_kv.errors import ConfigError
from unit.test_wrappers import Held, PlainCalls

OLD, NEW = bytes(range(32)), bytes(range(32, 64))

KNOWN = "01036f6c646465666768696a6b6c6d6e6f4860fc085bd367e325d4bd141e4fce6800664bfbc6ca2e3c"


def encrypted(held: Held, keys: dict[str, bytes] | None = None, collection: str = "ks.c") -> Encrypted:
    return Encrypted(PlainCalls(held), Encryption(keys or {"old": OLD}), collection)


RECORDS = [
    Record("a", b'{"n":1}'),
    Record("b", b'{"$ref":2}', Kind.TEXT, 5),
    Record("c", b"\x00raw", Kind.BYTES),
    Record("d", b"", Kind.BYTES),
]


def test_every_kind_comes_back_and_none_can_be_read_below() -> None:
    held = Held()
    store = encrypted(held)
    store.put_many(RECORDS)
    assert store.get_many(["a", "b", "c", "d", "x"]) == [
        Found({"n": 1}),
        Found({"$ref": 2}, Kind.TEXT, 5),
        Found(b"\x00raw", Kind.BYTES),
        Found(b"", Kind.BYTES),
        None,
    ]
    assert {record.kind for record in held.records.values()} == {Kind.BYTES}
    assert not any(b"raw" in record.payload or b"ref" in record.payload for record in held.records.values())
    assert held.records["b"].expires_at_ms == 5


def test_the_same_value_never_looks_the_same() -> None:
    held = Held()
    store = encrypted(held)
    store.put_many([RECORDS[0]])
    first = held.records["a"].payload
    store.put_many([RECORDS[0]])
    assert held.records["a"].payload != first


def test_the_form_is_the_documented_one() -> None:
    """The text was made by hand from the form in the module's docstring, with AES-GCM as it stands in cryptography."""
    held = Held()
    held.records["a"] = Record("a", bytes.fromhex(KNOWN), Kind.BYTES)
    assert encrypted(held).get_many(["a"]) == [Found({"n": 1})]


def test_old_keys_are_read_and_new_ones_are_written_with() -> None:
    held = Held()
    encrypted(held).put_many([RECORDS[0]])
    both = Encrypted(PlainCalls(held), Encryption({"old": OLD, "new": NEW}, primary="new"), "ks.c")
    assert both.get_many(["a"]) == [Found({"n": 1})]
    both.put_many([RECORDS[0]])
    assert encrypted(held, {"new": NEW}).get_many(["a"]) == [Found({"n": 1})]
    assert encrypted(held).get_many(["a"]) == [Damaged("it is encrypted with the key 'new', which is not given")]


def test_a_row_that_was_moved_is_refused() -> None:
    held = Held()
    encrypted(held).put_many([RECORDS[0], RECORDS[2]])
    held.records["a"], held.records["c"] = held.records["c"], held.records["a"]
    assert all(isinstance(stored, Damaged) for stored in encrypted(held).get_many(["a", "c"]))


def test_another_collection_is_refused() -> None:
    held = Held()
    encrypted(held).put_many([RECORDS[0]])
    assert isinstance(encrypted(held, collection="ks.d").get_many(["a"])[0], Damaged)


@pytest.mark.parametrize("cut", [True, False])
def test_no_changed_byte_and_no_cut_is_taken(cut: bool) -> None:
    held = Held()
    store = encrypted(held)
    store.put_many([RECORDS[0]])
    whole = held.records["a"].payload
    for place in range(len(whole)):
        changed = whole[:place] if cut else whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :]
        held.records["a"] = Record("a", changed, Kind.BYTES)
        assert isinstance(store.get_many(["a"])[0], Damaged), place


def test_a_wrong_key_of_the_same_id_is_refused() -> None:
    held = Held()
    encrypted(held).put_many([RECORDS[0]])
    assert isinstance(encrypted(held, {"old": NEW}).get_many(["a"])[0], Damaged)


def test_plain_text_is_refused() -> None:
    held = Held()
    held.put(RECORDS)
    assert all(isinstance(stored, Damaged) for stored in encrypted(held).get_many(["a", "b", "c", "d"]))


@pytest.mark.parametrize(
    ("keys", "primary"),
    [({}, None), ({"": OLD}, None), ({"a": b"short"}, None), ({"a": OLD}, "b"), ({"x" * 256: OLD}, None)],
)
def test_wrong_keys_are_refused(keys: dict[str, bytes], primary: str | None) -> None:
    with pytest.raises(ConfigError):
        Encryption(keys, primary=primary)


SECRET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@pytest.mark.parametrize(
    ("keys", "primary", "told"),
    [
        ({"2025": OLD, "2026": SECRET}, SECRET, r"primary \(bytes\) is not the id .* give one of '2025', '2026'"),
        ({"2025": OLD}, bytearray(SECRET), r"primary \(bytearray\) is not the id .* give one of '2025'"),
        ({"2025": OLD}, SECRET.decode(), r"primary \(str\) is not the id .* give one of '2025'"),
        ({"2025": OLD, SECRET.decode(): "2026"}, None, "key 2 of those given must be 16, 24 or 32 bytes, got str"),
        ({"2025": OLD, "2026": SECRET[:31]}, None, "key 2 of those given must be 16, 24 or 32 bytes, got 31"),
        ({SECRET: "2026"}, None, "id of an encryption key must be a text"),
        ({SECRET: OLD}, None, "id of an encryption key must be a text"),
    ],
)
def test_what_may_be_a_key_is_in_no_error(keys: Any, primary: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        Encryption(keys, primary=primary)
    assert "ABCDE" not in str(raised.value)


def test_keys_are_never_shown() -> None:
    assert repr(Encryption({"old": OLD, "new": NEW})) == "Encryption(old, new)"


def test_without_its_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'langchain-kv[encryption]'")):
        Encryption({"k": bytes(32)})

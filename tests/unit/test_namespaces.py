"""How namespaces are kept in keys: no two collide, and a namespace's keys stand together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_kv.errors import InvalidKeyError
from langchain_kv.values.namespaces import decode_key, namespace_prefix, subtree_prefix

# The characters that mean something, those that spell them, and others on both sides in the order of code points.
TEXTS = st.text(st.sampled_from("\x00\x1c\x1d\x1e\x1f def/a\x7f\U0010ffff") | st.characters(exclude_categories=["Cs"]))
NAMESPACES = st.lists(TEXTS.filter(bool), min_size=1, max_size=4).map(tuple)


@given(NAMESPACES, TEXTS)
def test_a_kept_key_says_its_namespace_and_key(labels: tuple[str, ...], key: str) -> None:
    assert decode_key(namespace_prefix(labels) + key) == (labels, key)


@given(NAMESPACES, TEXTS, NAMESPACES, TEXTS)
def test_no_two_collide(one: tuple[str, ...], key: str, other: tuple[str, ...], other_key: str) -> None:
    same = namespace_prefix(one) + key == namespace_prefix(other) + other_key
    assert same == ((one, key) == (other, other_key))


@given(NAMESPACES, NAMESPACES, TEXTS)
def test_a_prefix_finds_its_own_namespace_only(one: tuple[str, ...], other: tuple[str, ...], key: str) -> None:
    kept = namespace_prefix(other) + key
    assert kept.startswith(namespace_prefix(one)) == (one == other)
    start = subtree_prefix(one)
    is_below = kept.startswith(start) and kept[len(start)] in "\x1e\x1f"
    assert is_below == (other[: len(one)] == one)


@given(TEXTS)
def test_ordinary_keys_are_in_no_namespace(key: str) -> None:
    if not key.startswith("\x1f"):
        assert decode_key(key) is None


def test_no_labels_are_no_namespace() -> None:
    assert namespace_prefix(()) == subtree_prefix(()) == ""


@pytest.mark.parametrize("label", ["", 5, None, b"a", "\ud800"])
def test_labels_that_are_none_are_refused(label: object) -> None:
    with pytest.raises(InvalidKeyError):
        namespace_prefix(["a", label])  # type: ignore[list-item]

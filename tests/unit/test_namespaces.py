"""How namespaces are kept in keys: no two collide, and a namespace's keys stand together."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_kv import KVStore
from langchain_kv.errors import InvalidKeyError
from langchain_kv.values.namespaces import (
    decode_key,
    is_in_tree,
    namespace_of,
    namespace_prefix,
    subtree_prefix,
    tree_prefixes,
)

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


@given(st.lists(st.tuples(NAMESPACES | st.just(()), TEXTS.filter(lambda key: not key.startswith("\x1f")))))
def test_the_keys_of_a_namespace_stand_together(pairs: list[tuple[tuple[str, ...], str]]) -> None:
    kept = sorted(namespace_prefix(labels) + key for labels, key in pairs)
    assert kept == sorted(kept, key=str.encode)  # by code point as by byte
    in_namespaces = [labels for key in kept if (labels := namespace_of(key))]
    runs = [labels for labels, _ in groupby(in_namespaces)]
    assert len(runs) == len(set(runs))


def test_listing_one_on_a_file_looks_at_no_key_of_another(tmp_path: Path, face: Any) -> None:
    """Counted in steps of SQLite's machine, beside few other keys and beside many."""
    url, steps = f"sqlite:{tmp_path}/kv.db", 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with KVStore("kv", url) as store:
        pool = store._connection.backend._engine._pool
        one = store.namespace("one")
        one.mset([(f"k{number}", number) for number in range(10)])
        taken = []
        for count in (2, 1_000):
            others = [namespace_prefix([f"other {number}"]) for number in range(count)]
            store.mset([(other + key, 1) for other in others for key in "abc"])
            for _ in range(2):  # a coroutine's reads have a connection of their own from the second on
                assert len(face(one).keys()) == 10
            for connection in pool._open:
                connection.set_progress_handler(step, 1)
            steps = 0
            assert len(face(one).keys()) == 10
            taken.append(steps)
            for connection in pool._open:
                connection.set_progress_handler(None, 0)
    assert 10 < taken[0] == taken[1]


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


@pytest.mark.parametrize("labels", [("a",), ("a", "b"), ("\x1d",)])
def test_a_tree_is_its_namespace_and_those_below(labels: tuple[str, ...]) -> None:
    tree = subtree_prefix(labels)
    inside = [namespace_prefix(labels) + key for key in ("", "k", "\x1f")] + [namespace_prefix((*labels, "c")) + "k"]
    outside = [namespace_prefix((*labels[:-1], labels[-1] + "x")) + "k", namespace_prefix(("z",)) + "k", tree]
    assert [key for key in inside if not is_in_tree(key, tree)] == []
    assert [key for key in outside if key.startswith(tree) and is_in_tree(key, tree)] == []
    assert all(any(key.startswith(prefix) for prefix in tree_prefixes(tree)) for key in inside)
    assert not any(key.startswith(prefix) for prefix in tree_prefixes(tree) for key in outside)
    assert all(is_in_tree(key, "") for key in inside)
    assert not is_in_tree("no namespace", "")

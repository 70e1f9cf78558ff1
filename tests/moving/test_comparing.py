"""Comparisons: each difference is found and nothing else, whatever the targets and the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_kv import Backend, BackendOptions, Damaged, Kind, Record, Wrapper
from langchain_kv.backends.base import Found, Stored
from langchain_kv.moving.comparing import Comparison, Difference, compare
from langchain_kv.places.memory import parse_memory_url
from langchain_kv.runtime.clock import now_ms
from moving_values import Open, records


def compared(left: Backend, right: Backend, **how: Any) -> tuple[list[Difference], dict[str, int]]:
    comparison = Comparison()
    found = sorted(compare(left, right, comparison, **how))
    return found, comparison.counts


@pytest.mark.parametrize("kind", ["memory", "sqlite", "sql", "http"])
def test_equal_values_are_equal_on_every_target(opened: Open, kind: str) -> None:
    left, right = opened(), opened(kind)
    both = [record for record in records(140) if record.kind is not Kind.BYTES]
    left.put_many(both)
    right.put_many(both)

    assert compared(left, right) == ([], {"same": len(both), "differ": 0, "only_left": 0, "only_right": 0})


def test_each_kind_of_difference_is_found(opened: Open) -> None:
    left, right = opened(), opened("sqlite")
    moment = now_ms() + 1_000_000
    left.put_many([Record(key, b'"eA=="') for key in ("same", "value", "kind", "expiry", "left")])
    right.put_many(
        [
            Record("same", b'"eA=="'),
            Record("value", b"2"),
            Record("kind", b"eA==", Kind.BYTES),
            Record("expiry", b'"eA=="', Kind.JSON, moment),
            Record("right", b"1"),
        ]
    )

    assert compared(left, right, batch=2) == (
        [
            Difference("expiry", "differ", ("expires_at",)),
            Difference("kind", "differ", ("kind", "value")),
            Difference("left", "only-left"),
            Difference("right", "only-right"),
            Difference("value", "differ", ("value",)),
        ],
        {"same": 1, "differ": 3, "only_left": 1, "only_right": 1},
    )


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        (b"1", b"true", False),
        (b"[0]", b"[false]", False),
        (b'{"a":[1]}', b'{"a":[true]}', False),
        (b"1", b"1.0", True),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', True),
        (b"123456789012345678901", b"123456789012345678901", True),
        (b"[123456789012345678901,1]", b"[123456789012345678901,true]", False),
        (b'"1"', b"1", False),
        (b"null", b'""', False),
        (b"{}", b"[]", False),
    ],
)
def test_values_are_equal_as_json(opened: Open, one: bytes, other: bytes, are_equal: bool) -> None:
    left, right = opened(), opened()
    left.put_many([Record("a", one)])
    right.put_many([Record("a", other)])

    assert (compared(left, right)[0] == []) is are_equal


def test_bytes_equal_the_base64_text_of_a_store_of_bytes_where_that_is_said(opened: Open) -> None:
    left, right = opened(), opened("http")
    for each in (left, right):
        each.put_many([Record("a", b"\x00\x01", Kind.BYTES)])

    assert compared(left, right, bytes_only=True)[0] == []
    assert compared(left, right)[0] == [Difference("a", "differ", ("kind", "value"))]


def test_only_keys_with_the_prefix_are_compared(opened: Open) -> None:
    left, right = opened(), opened()
    left.put_many([Record("a", b"1"), Record("b", b"1")])
    right.put_many([Record("a", b"1"), Record("c", b"1")])

    assert compared(left, right, prefix="a")[0] == []


def test_what_only_the_right_has_is_left_out_if_so_asked(opened: Open) -> None:
    left, right = opened(), opened()
    right.put_many([Record("a", b"1")])

    assert compared(left, right, both_ways=False)[0] == []


def test_keys_that_the_other_side_does_not_take_are_differences(opened: Open) -> None:
    wide, narrow = opened("sql"), opened("sqlite")
    wide.put_many([Record(key, b"1") for key in ("", "a", "b")])
    narrow.put_many([Record("a", b"1"), Record("\xe4" * 200, b"1")])

    class Short(Wrapper):
        key_max_bytes = 100

        def get_many(self, keys: Sequence[str]) -> Sequence[Stored | None]:
            assert all(len(key.encode()) <= 100 for key in keys)
            return super().get_many(keys)

    assert {(each.key, each.where) for each in compared(wide, narrow)[0]} == {
        ("", "only-left"),
        ("b", "only-left"),
        ("\xe4" * 200, "only-right"),
    }
    assert {(each.key, each.where) for each in compared(Short(wide), narrow)[0]} == {
        ("", "only-left"),
        ("b", "only-left"),
        ("\xe4" * 200, "only-right"),
    }
    assert ("", "only-right") in {(each.key, each.where) for each in compared(narrow, wide)[0]}


class Rotten(Wrapper):
    """Of which no value can be read."""

    def outwards(self, key: str, found: Found) -> Stored:
        return Damaged("rotten")


def test_what_is_damaged_differs_from_everything(opened: Open) -> None:
    one = Rotten(opened())
    one.put_many([Record("a", b"1")])

    assert compared(one, one)[0] == [Difference("a", "differ", ("damaged",))]


class Late(Wrapper):
    """In which a key expires after it was listed, or compared."""

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return [None] * len(keys)


def test_what_expires_while_it_is_compared_is_no_difference(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = opened(), opened()
    moment = now_ms() + 50_000
    left.put_many([Record("a", b"1", Kind.JSON, moment)])
    monkeypatch.setattr("langchain_kv.moving.comparing.now_ms", lambda: moment)

    assert compared(left, right)[0] == []
    assert compared(opened(), Late(left))[0] == []


class Counting(Wrapper):
    """Counts the keys whose values were read one by one."""

    looked_at = 0

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        self.looked_at += len(keys)
        return super().get_many(keys)


def test_the_left_is_read_once_where_the_right_has_no_more_keys(opened: Open) -> None:
    left, right = Counting(opened()), opened()
    left.put_many(records(50))
    right.put_many(records(40))
    compared(left, right)

    assert left.looked_at == 0


VALUES = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([b"1", b"2", b"true"]))


@given(VALUES, VALUES, st.integers(1, 9))
def test_the_differences_are_those_of_two_dictionaries(
    one: dict[str, bytes], other: dict[str, bytes], batch: int
) -> None:
    place = parse_memory_url("memory:comparing")
    left, right = (place.open(BackendOptions(name, "default_keyspace")) for name in ("left", "right"))
    for backend, values in ((left, one), (right, other)):
        backend.open(clear=True)
        backend.put_many([Record(key, value) for key, value in values.items()])
    found, counts = compared(left, right, batch=batch)
    left.close()
    right.close()

    assert {difference.key: difference.where for difference in found} == dict(expected(one, other))
    assert sum(counts.values()) == len({*one, *other})


def expected(one: dict[str, bytes], other: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    for key in {*one, *other}:
        if key not in other:
            yield key, "only-left"
        elif key not in one:
            yield key, "only-right"
        elif one[key] != other[key]:
            yield key, "differ"

"""Vectors as bytes: never lossy, the same bytes with and without numpy."""

from __future__ import annotations

import math
import random
import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedding_models import float32
from langchain_kv.embeddings import vectors
from langchain_kv.embeddings.vectors import Unfit, count_of, fill, pack, unpack
from langchain_kv.errors import UnsupportedError

SHORT = [1.0, -2.5, 0.0, 3.4028234663852886e38, 1.401298464324817e-45, -0.0]
LONG = [0.1, 1e39, -1e308, 5e-324]


@pytest.fixture(params=["numpy", "array"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Once with numpy, once as where it is not installed."""
    if request.param == "array":
        monkeypatch.setitem(sys.modules, "numpy", None)
    vectors.imported_numpy.cache_clear()
    assert (vectors.imported_numpy() is None) == (request.param == "array")
    yield request.param
    vectors.imported_numpy.cache_clear()


def same(one: list[float], other: list[float]) -> bool:
    """Compare bit by bit: -0.0 is another number than 0.0."""
    return struct.pack(f"<{len(one)}d", *one) == struct.pack(f"<{len(other)}d", *other)


@pytest.mark.parametrize(("numbers", "size"), [(SHORT, 4), (LONG, 8)], ids=["float32", "float64"])
def test_the_form_of_a_vector(library: str, numbers: list[float], size: int) -> None:
    (value,) = pack([numbers])
    letter = {4: "f", 8: "d"}[size]

    assert value == struct.pack(f"<BBHI{len(numbers)}{letter}", 0xE1, size, 0, len(numbers), *numbers)
    with pytest.raises(UnicodeDecodeError):
        value.decode()


@pytest.mark.parametrize("seed", range(20))
def test_vectors_come_back_bit_by_bit(library: str, seed: int) -> None:
    chosen = random.Random(seed)
    exact = [struct.unpack("<d", chosen.randbytes(8))[0] for _ in range(300)]
    finite = [number for number in exact if math.isfinite(number)]
    several = [[chosen.choice(finite) for _ in range(5)] for _ in range(10)]
    several += [[chosen.gauss(0, 1) for _ in range(5)], float32([chosen.gauss(0, 1) for _ in range(5)])]
    values = pack(several)

    assert all(same(vector, found or []) for vector, found in zip(several, unpack(values), strict=True))  # type: ignore
    assert [value[1] for value in values[-2:]] == [8, 4]


@pytest.mark.parametrize("several", [[SHORT, SHORT], [LONG, LONG], [SHORT, SHORT[:3], LONG], [[1], [True, 0]]])
def test_with_and_without_numpy_the_bytes_are_the_same(several: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with_numpy = pack(several)
    monkeypatch.setattr(vectors, "imported_numpy", lambda: None)

    assert pack(several) == with_numpy
    assert unpack(with_numpy) == several


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int8"])
def test_arrays_are_taken(library: str, kind: str) -> None:
    table = np.array([[1, 2, 3], [4, 5, 6]], kind)

    assert pack(table) == pack(list(table)) == pack([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert pack([array("f", [1, 2]), (1, 2)]) == pack([[1.0, 2.0]] * 2)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([1.0, math.nan], "NaN or an infinity"),
        ([math.inf, 1.0], "NaN or an infinity"),
        ([-math.inf, math.inf], "NaN or an infinity"),
        ([], "no numbers"),
        (["1.0", "2.0"], "no number"),
        ([None, 1.0], "no number"),
        ([[1.0], [2.0]], "no number"),
        (None, "NoneType"),
        (1.0, "float"),
        ("1.0", "it is str"),
        (b"12345678", "it is bytes"),
        ([10**400, 1], "no number"),
    ],
    ids=repr,
)
def test_what_is_no_vector_is_told_and_does_not_change_its_neighbours(library: str, wrong: Any, why: str) -> None:
    first, unfit, last = pack([[1.0, 2.0], wrong, [3.0, 4.0]])

    assert isinstance(unfit, Unfit)
    assert why in unfit.reason
    assert unpack([first, last]) == [[1.0, 2.0], [3.0, 4.0]]  # type: ignore[list-item]


def test_numbers_whose_sum_is_beyond_all_numbers_are_kept(library: str) -> None:
    for numbers in ([1.7e308, 1.7e308], [3.4e38] * 3, float32([3.4e38]) * 3):
        assert unpack(pack([numbers])) == [numbers]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [b"", b"\xe1", b"[1.0]", "text", None, 7, *(pack([SHORT])[0][:size] for size in (7, 8, 9, 31))],  # type: ignore
    ids=repr,
)
def test_what_is_not_in_the_form_counts_no_numbers(value: Any) -> None:
    assert count_of(value) == 0


def test_bits_of_the_head_that_changed_are_seen() -> None:
    value = bytearray(pack([SHORT])[0])
    assert count_of(bytes(value)) == len(SHORT)
    for bit in range(64):
        value[bit // 8] ^= 1 << bit % 8
        assert count_of(bytes(value)) == 0, bit
        value[bit // 8] ^= 1 << bit % 8


def test_nan_that_is_stored_is_seen_and_its_neighbours_are_read(library: str) -> None:
    good, also = pack([[1.0, 2.0], [3.0, 4.0]])
    for bad in (good[:8] + struct.pack("<2f", math.nan, 1), also[:8] + struct.pack("<2f", 1, -math.inf)):  # type: ignore
        assert unpack([good, bad, also]) == [[1.0, 2.0], None, [3.0, 4.0]]  # type: ignore[list-item]


def test_an_array_is_filled_and_rows_with_nan_are_named() -> None:
    good, long = pack([[1.0, 2.0], [0.1, 0.2]])
    bad = good[:8] + struct.pack("<2f", math.nan, 1)  # type: ignore[index]
    array = np.zeros((4, 2), "float32")

    assert fill(array, [3, 0, 1], [good, long, bad]) == [2]  # type: ignore[list-item]
    assert array[[0, 2, 3]].tolist() == [float32([0.1, 0.2]), [0.0, 0.0], [1.0, 2.0]]
    assert fill(array, [1, 2], [good, bad]) == [1]  # type: ignore[list-item]
    assert fill(array, [2, 1], [good, good]) == []  # type: ignore[list-item]
    assert array[1:].tolist() == [[1.0, 2.0]] * 3
    with pytest.raises(UnsupportedError, match="beyond float32: use embed_documents"):
        fill(array, [0], pack([[1e39, 1.0]]))  # type: ignore[arg-type]

"""The vector of an item as a Data API's index takes it."""

from __future__ import annotations

import base64
from array import array

import pytest

from langchain_kv.backends.own_vectors import spelled_for_service


@pytest.mark.parametrize(
    ("numbers", "is_taken"),
    [
        ([0.0] * 100, False),
        ([9e-7] * 100, False),  # which is longer than 1e-6, and has no number beyond that
        ([9e-7] * 99 + [-2e-6], True),
        ([1.0] * 100, True),
        ([9e16] + [0.0] * 99, True),
        ([1.0] * 99 + [-1.1e17], False),
    ],
)
def test_a_service_is_given_only_vectors_that_its_index_takes(numbers: list[float], is_taken: bool) -> None:
    vector = array("f", numbers)
    spelled = spelled_for_service(vector.tobytes())
    assert (spelled is not None) is is_taken
    if spelled is not None:
        vector.byteswap()
        assert base64.b64decode(spelled) == vector.tobytes()

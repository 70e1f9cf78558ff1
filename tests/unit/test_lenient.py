"""JSON text of others: numbers as floats, or with every digit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from langchain_kv.values.lenient import exact_number, exact_numbers, parse_json


@pytest.mark.parametrize("text", ["0.1", "1.50", "1e5", "-0.0", "1.2345678901234568e+16", "5e-324", "1E+23"])
def test_a_number_that_a_float_keeps_is_a_float(text: str) -> None:
    assert isinstance(exact_number(text), float)


@pytest.mark.parametrize("text", ["1.00000000000000000001", "12345678901234567.89", "1E+400", "1e-400"])
@pytest.mark.parametrize("beside", ["", ',"\\ud800"'], ids=["fast", "slowly"])
def test_a_number_that_a_float_would_round_is_kept_where_that_is_asked_for(text: str, beside: str) -> None:
    read: Any = parse_json(f"[{text}{beside}]")
    with exact_numbers():
        exact: Any = parse_json(f"[{text}{beside}]")

    assert (type(read[0]), read[0]) == (float, float(text))
    assert (type(exact[0]), exact[0]) == (Decimal, Decimal(text))
    assert type(parse_json("0.5")) is float


def test_an_exponent_beyond_all_bounds_is_no_value() -> None:
    with exact_numbers(), pytest.raises(ValueError, match="out of range"):
        parse_json("1e99999999999999999999")

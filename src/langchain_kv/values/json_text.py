"""JSON text as the Data API reads and writes it: strict, exact, and with its own spelling of numbers.

The bottom layer: it imports nothing of this package but errors and limits, and msgspec only once something is written.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, Final

from langchain_kv.errors import DataAPIError
from langchain_kv.limits import NUMBER_MAX_DIGITS

__all__ = ["NESTING_MAX", "is_rewritten", "read", "utf16_length", "write"]

NESTING_MAX: Final = 1_000
"""Levels of arrays and objects that are read at all (Jackson's guard, as the Data API has it)."""

_BOM: Final = b"\xef\xbb\xbf"
_WHITESPACE: Final = re.compile(r"[ \t\n\r]*")
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}'))
_LEVELS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_CHUNK: Final = 64 * 1024
_EXPONENT_MAX: Final = 2**31 - 1  # a Java int: the scale of a BigDecimal
_EXACT: Final = Context(prec=NUMBER_MAX_DIGITS + 1, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation])
_ZERO: Final = Decimal(0)


def read(text: bytes, stood_in_for: Iterator[Any] | None = None) -> Any:
    """Parse the first JSON value of ``text``; what follows it is ignored, as the Data API does.

    Args:
        text: UTF-8, with or without a byte order mark.
        stood_in_for: the values in whose places ``NaN`` stands, in order; without, that is no JSON.

    Returns:
        Objects as dict (order kept), integers as int, numbers with a point or an exponent as Decimal without trailing
        zeros. A lone surrogate that was escaped stays in its text: ``write`` refuses it.

    Raises:
        DataAPIError: REQUEST_NOT_JSON where it is no JSON, is not UTF-8, or an object names a field twice;
            SHRED_DOC_LIMIT_VIOLATION where a number has over 100 digits or values nest over 1,000 levels.
    """
    _check_nesting(text)
    try:
        characters = text.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise _not_json(f"it is not UTF-8 (byte {error.start})") from None
    start = _WHITESPACE.match(characters)
    decoder = _DECODER if stood_in_for is None else _decoder_with(stood_in_for)
    try:
        return decoder.raw_decode(characters, start.end() if start else 0)[0]
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise _too_deep() from None


def write(value: Any) -> bytes:
    """Return the compact JSON text of what ``read`` returned: non-ASCII raw, numbers as the Data API spells them.

    Raises:
        DataAPIError: UNEXPECTED_DRIVER_ERROR (the Data API's own answer) where a text holds a lone surrogate.
    """
    try:
        text: bytes = _encoder().encode(value)
    except UnicodeEncodeError:
        error = DataAPIError.of(
            "UNEXPECTED_DRIVER_ERROR",
            "A text holds half of a surrogate pair (such as \\ud800), which UTF-8 cannot store: remove or replace it.",
        )
        error.retryable = False
        raise error from None
    return text


def is_rewritten(value: Any) -> bool:
    """Whether ``value`` holds a number that was sent with a point or an exponent and is written as an integer.

    The Data API calls a document changed when it is replaced by one with ``1.0``, though it keeps ``1`` of both.
    """
    if isinstance(value, Decimal):
        return value.as_tuple().exponent == 0
    if isinstance(value, dict):
        return any(map(is_rewritten, value.values()))
    return isinstance(value, list) and any(map(is_rewritten, value))


def utf16_length(text: bytes) -> int:
    """Return the UTF-16 units of UTF-8 text: what a Java ``String.length()`` counts."""
    return len(text.decode().encode("utf-16-le")) // 2


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise _not_json(f"an object names the field {twice[:100]!r} twice: send each field once")
    return fields


def _integer(digits: str) -> int:
    if len(digits) > NUMBER_MAX_DIGITS:
        _check_digits(digits)
    return int(digits)


def _decimal(digits: str) -> Decimal:
    if len(digits) > NUMBER_MAX_DIGITS:
        _check_digits(digits)
    try:
        number = Decimal(digits)
        if digits[-1] != "0" and "e" not in digits and "E" not in digits:
            return number  # nothing to strip, and Decimal spells it as it came
        if number.is_zero():
            return _ZERO
        number = number.normalize(_EXACT)
    except InvalidOperation:  # an exponent beyond Decimal's own range
        raise _exponent_out_of_range() from None
    if abs(number.as_tuple().exponent) > _EXPONENT_MAX:  # type: ignore[arg-type] # it is a number, and finite
        raise _exponent_out_of_range()
    return number


def _exponent_out_of_range() -> DataAPIError:
    return _not_json(f"the exponent of a number is out of range: keep it within {_EXPONENT_MAX}")


def _check_digits(digits: str) -> None:
    count = sum(character.isdigit() for character in digits)
    if count > NUMBER_MAX_DIGITS:
        raise DataAPIError.of(
            "SHRED_DOC_LIMIT_VIOLATION",
            f"A number has {count} digits; at most {NUMBER_MAX_DIGITS} are allowed. Send it as text, or round it.",
        )


def _constant(name: str) -> Any:
    raise _not_json(f"{name} is not a JSON value: send null, or a text")


def _check_nesting(text: bytes) -> None:
    """Refuse over NESTING_MAX levels before anything recurses; they are counted only where there could be as many."""
    if text.count(b"[") + text.count(b"{") <= NESTING_MAX:
        return
    unescaped = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = re.sub(rb'"[^"]*"', b"", unescaped.translate(None, _NOT_STRUCTURE)).replace(b'"', b"")
    level = 0
    for start in range(0, len(brackets), _CHUNK):  # in parts, between which other threads have their turn
        *levels, level = accumulate(map(_LEVELS.__getitem__, brackets[start : start + _CHUNK]), initial=level)
        if max(*levels, level) > NESTING_MAX:
            raise _too_deep()


def _too_deep() -> DataAPIError:
    return DataAPIError.of(
        "SHRED_DOC_LIMIT_VIOLATION", f"The JSON nests over {NESTING_MAX} levels: send a flatter document."
    )


def _not_json(reason: str) -> DataAPIError:
    return DataAPIError.of("REQUEST_NOT_JSON", f"The request body is not JSON that can be read: {reason}.")


def _make_decoder(constant: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=constant
    )


def _decoder_with(values: Iterator[Any]) -> json.JSONDecoder:
    return _make_decoder(lambda name: next(values) if name == "NaN" else _constant(name))


_DECODER: Final = _make_decoder(_constant)
_ENCODERS: Final[list[Any]] = []


def _encoder() -> Any:
    if not _ENCODERS:
        import msgspec  # here, so that importing this package stays cheap

        _ENCODERS.append(msgspec.json.Encoder(decimal_format="number"))
    return _ENCODERS[0]

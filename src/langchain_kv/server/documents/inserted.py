"""Bodies of inserts, whose vectors are read as the float32 numbers that they become, and kept as the text that came.

Nobody looks at a single number of a vector that is inserted, and to make a Decimal of each, and text again, takes as
long as all the rest of the insert.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from langchain_kv.errors import DataAPIError
from langchain_kv.values.json_text import NESTING_MAX, read, write

__all__ = ["Numbers", "read_inserted"]

_INSERT: Final = re.compile(rb'\s*\{\s*"insert(?:One|Many)"')
_NAME: Final = b'"$vector"'
_LIST: Final = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*(\[[^\]]+\])")
_STAND_IN: Final = b"NaN"  # which is no JSON, so that no client can send one
_UNUSUAL: Final = (b"e", b"E", b"0,", b"0.000000")
"""What a number has in it that is not written as it came: an exponent, a zero at the end, so many that it gets one."""

_LONG: Final = b"0" * 101
_DIGITS: Final = bytes.maketrans(b"123456789.", b"0" * 10)
_floats: Final = msgspec.json.Decoder(list[float])


class Numbers(list[float]):
    """A list of numbers as JSON has it, parsed.

    Attributes:
        text: the JSON text, compact, each number spelled as ``write`` spells what ``read`` returns of it.
    """

    text: bytes


def read_inserted(body: bytes) -> Any:
    """Parse the body of a command as ``read`` does; the lists of an insert's fields ``$vector`` are ``Numbers``.

    Raises:
        DataAPIError: as ``read``.
    """
    if not _INSERT.match(body):
        return read(body)
    shortened, lists = _taken_out(body)
    if not lists or shortened.count(_STAND_IN) > len(lists):
        return read(body)
    if len(lists) + shortened.count(b"[") + shortened.count(b"{") > NESTING_MAX:  # it may be nested too deep
        return read(body)
    try:
        return read(shortened, iter(lists))
    except DataAPIError:
        return read(body)  # whose error says where in the body that came


def _taken_out(body: bytes) -> tuple[bytes, list[Numbers]]:
    """Return the body with a stand-in for each list of numbers that is a ``$vector``, and these."""
    parts: list[bytes] = []
    lists: list[Numbers] = []
    done = looked = 0
    while (name := body.find(_NAME, looked)) >= 0:
        looked = name + len(_NAME)
        # Behind a backslash it is inside of a text. Any other quote begins one, as no `$` follows the end of one.
        found = _LIST.match(body, looked) if body[name - 1 : name] != b"\\" else None
        numbers = _numbers_of(found[1]) if found else None
        if found and numbers:
            lists.append(numbers)
            parts += body[done : found.start(1)], _STAND_IN
            done = looked = found.end()
    return b"".join([*parts, body[done:]]), lists


def _numbers_of(text: bytes) -> Numbers | None:
    """Return the list that a text is; None where there is anything to be said of it, which ``read`` does."""
    try:
        numbers = Numbers(_floats.decode(text))
        numbers.text = b"[%b]" % _respelled(text.translate(None, b"[] \t\n\r"))
    except (msgspec.DecodeError, DataAPIError):
        return None
    return numbers


def _respelled(numbers: bytes) -> bytes:
    """Return numbers between commas, each as it is written once it is ``read``."""
    if _LONG in numbers.translate(_DIGITS):
        return write(read(b"[%b]" % numbers))[1:-1]
    text = b",%b," % numbers
    commas = sorted({text.rindex(b",", 0, at) for mark in _UNUSUAL for at in _places_of(mark, text)})
    if not commas:
        return numbers
    ends = [text.index(b",", comma + 1) for comma in commas]
    unusual = [text[comma + 1 : end] for comma, end in zip(commas, ends, strict=True)]
    written = write(read(b"[%b]" % b",".join(unusual)))[1:-1].split(b",")
    kept = [text[end:comma] for end, comma in zip([0, *ends], [*commas, len(text)], strict=True)]
    return b"".join([kept[0], *[b",%b%b" % pair for pair in zip(written, kept[1:], strict=True)]])[1:-1]


def _places_of(mark: bytes, text: bytes) -> Iterator[int]:
    at = text.find(mark)
    while at >= 0:
        yield at
        at = text.find(mark, at + 1)

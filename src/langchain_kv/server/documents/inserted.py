"""Bodies of inserts, whose vectors are read as the float32 numbers that they become, and kept as the text that came.

Nobody looks at a single number of a vector that is inserted, and to make a Decimal of each, and text again, takes as
long as all the rest of the insert.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from langchain_kv.errors import DataAPIError
from langchain_kv.values.json_text import NESTING_MAX, read, write

__all__ = ["Numbers", "read_inserted"]

_INSERT: Final = re.compile(rb'\s*\{\s*"insert(?:One|Many)"')
_NAME: Final = b'"$vector"'
_LIST: Final = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*(\[[^\]]+\])")
_STAND_IN: Final = b"NaN"  # which is no JSON, so that no client can send one
# Numbers that are written as they came: no zeros at the end, no exponent, none so small as to get one, not too long.
# No possessive repetition: before Python 3.11.5 one of a group matches too much.
_USUAL: Final = re.compile(rb"(?:-?(?!0\.000000)[\d.]{0,99}[1-9],)*")
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
    kept: list[bytes] = []
    unusual: list[bytes] = []
    text, done = numbers + b",", 0
    while (start := _USUAL.match(text, done).end()) < len(text):  # type: ignore[union-attr] # it matches nothing, too
        kept.append(text[done:start])
        done = text.index(b",", start)
        unusual.append(text[start:done])
        done += 1
    if not unusual:
        return numbers
    written = write(read(b"[%b]" % b",".join(unusual)))[1:-1].split(b",")
    parts = [b"%b%b," % pair for pair in zip(kept, written, strict=True)]
    return b"".join([*parts, text[done:]])[:-1]

"""What is read of a target, and what changes it: the words of the waist, which ``base.py`` hands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from langchain_kv.engines.base import Ending
from langchain_kv.values.records import Kind, Record

__all__ = [
    "Change",
    "Damaged",
    "Found",
    "Merge",
    "Nearest",
    "Page",
    "Skimmed",
    "Stored",
    "alive_of",
    "is_alive",
]


class Found(msgspec.Struct, gc=False, eq=False):
    """What is read. Equal to any other with the same, also of a subclass that decodes it.

    Attributes:
        value: bytes where the kind is BYTES, else the value of the JSON text.
        kind: what the payload was.
        expires_at_ms: as the record's.
    """

    value: Any
    kind: Kind = Kind.JSON
    expires_at_ms: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Found):
            return NotImplemented
        ours = self.value, self.kind, self.expires_at_ms
        return ours == (other.value, other.kind, other.expires_at_ms)

    __hash__ = None  # type: ignore[assignment]  # it can change, and a value may be a list


class Damaged(NamedTuple):
    """Stands for a stored record that cannot be read.

    Attributes:
        reason: why, in words for the user; never the stored text.
    """

    reason: str

    @property
    def expires_at_ms(self) -> None:
        """None: when it expires cannot be read, so it never does."""
        return None


Stored = Found | Damaged
"""What is read of a key that is there."""


def is_alive(stored: Stored, now_ms: int) -> bool:
    """Return whether what is stored has not expired by now."""
    return stored.expires_at_ms is None or stored.expires_at_ms > now_ms


def alive_of(found: Mapping[Any, Stored], keys: Sequence[str], now_ms: int) -> list[Stored | None]:
    """Return what was found of each key and has not expired by now, in order."""
    return [
        one if (one := found.get(key)) is None or one.expires_at_ms is None or one.expires_at_ms > now_ms else None
        for key in keys
    ]


Page = list[tuple[str, Stored | None]]
"""A part of a scan: keys with what is stored, or with None where no values were asked for."""

Change = Callable[[Stored | None], Record | None]
"""Sees what is stored of a key (None: nothing) and answers what is to be there, None for nothing.

It may be called again where another writer was faster, so it has no effects of its own. What it raises ends the update,
and nothing is changed."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Sees a record that is to be stored and what is there of its key, and answers the record that is stored.

    As a ``Change``: it may be called again, and has no effects of its own.

    Attributes:
        of_stored: answers that.
        ending: the same, by payloads of JSON (and of Kind.TEXT), where both end with a text at this place: the record
            is stored with that of what is there. None: there is no such place. Every record that is given has the
            text, unless its kind is another. A backend need not look at it.
    """

    of_stored: Callable[[Record, Stored], Record]
    ending: Ending | None = None

    def __call__(self, record: Record, stored: Stored) -> Record:
        return self.of_stored(record, stored)


class Nearest(NamedTuple):
    """What is found by a vector.

    Attributes:
        items: keys with what is stored of them, the nearest first, of those whose vectors the target compares.
        is_all: whether there are no more of these.
        apart: all those with vectors that it cannot compare, in no order.
    """

    items: Page
    is_all: bool
    apart: Page


Skimmed = list[tuple[str, Stored | bytes | None]]
"""A part of a scan: keys with what is stored, or with the JSON text of a document of ``documents.py`` that keeps it."""

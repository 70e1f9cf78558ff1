"""What two targets have that is not the same: exact, and in the memory of a page, whatever the order of their keys."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import NamedTuple

from langchain_kv.backends.base import Backend, Found, Stored
from langchain_kv.errors import InvalidKeyError
from langchain_kv.moving.copying import BATCH, in_batches, pages_of
from langchain_kv.moving.values import as_bytes, differences_of
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import KeyRule, check_key

__all__ = ["Comparison", "Difference", "compare"]


class Difference(NamedTuple):
    """A key whose values are not the same.

    Attributes:
        key: the key.
        where: ``only-left``, ``only-right`` or ``differ``.
        parts: in what they differ: ``kind``, ``value``, ``expires_at``, ``damaged``; empty where there is only one.
    """

    key: str
    where: str
    parts: tuple[str, ...] = ()


@dataclass
class Comparison:
    """How many keys were compared, and what came out.

    Attributes:
        same: equal on both sides.
        differ: on both sides, and not equal.
        only_left: not on the right.
        only_right: not on the left.
    """

    same: int = 0
    differ: int = 0
    only_left: int = 0
    only_right: int = 0

    @property
    def read(self) -> int:
        """Keys that were compared so far."""
        return self.same + self.differ + self.only_left + self.only_right

    @property
    def counts(self) -> dict[str, int]:
        """The numbers, by their names."""
        return dict(vars(self))


def compare(
    left: Backend,
    right: Backend,
    comparison: Comparison,
    *,
    prefix: str = "",
    both_ways: bool = True,
    bytes_only: bool = False,
    batch: int = BATCH,
    watch: Callable[[Comparison], None] = lambda _: None,
) -> Generator[Difference]:
    """Yield each key whose values are not the same: the value, whether it is JSON or bytes, and when it expires.

    The left's values are read in pages, the right's of the same keys beside them. Then the right's keys are counted,
    and only where there are more than the left has, listed and looked for on the left. What expires meanwhile is no
    difference; what others write meanwhile may be one.

    Args:
        left: one target; it is open.
        right: the other.
        comparison: its numbers grow.
        prefix: literal; empty for all keys.
        both_ways: whether keys that only the right has are looked for, too.
        bytes_only: whether text is base64 of bytes, as stores of bytes keep them in documents.
        batch: keys that are compared together.
        watch: sees the numbers after each batch.
    """
    with closing(in_batches(pages_of(left, prefix, bytes_only=bytes_only), batch)) as batches:
        for some in batches:
            others = _asked(right, [key for key, _ in some])
            if bytes_only:
                (page,) = as_bytes([[(key, other) for (key, _), other in zip(some, others, strict=True)]])
                others = [other for _, other in page]
            for (key, stored), other in zip(some, others, strict=True):
                found = _compared(key, stored, other, comparison)
                if found is not None:
                    yield found
            watch(comparison)
    if both_ways and right.count(prefix) != comparison.same + comparison.differ:
        yield from _only_right(left, right, comparison, prefix, watch)


def _asked(backend: Backend, keys: Sequence[str]) -> list[Stored | None]:
    """Return what a target has of keys of another one, some of which it may not take: those it has not."""
    rule = KeyRule(backend.key_max_bytes, backend.allows_empty_key)
    taken = []
    for key in keys:
        with suppress(InvalidKeyError):
            taken.append(check_key(key, rule))
    found = dict(zip(taken, backend.get_many(taken), strict=True)) if taken else {}
    return [found.get(key) for key in keys]


def _compared(key: str, stored: Stored, other: Stored | None, comparison: Comparison) -> Difference | None:
    if other is None:
        if isinstance(stored, Found) and stored.expires_at_ms is not None and stored.expires_at_ms <= now_ms():
            return None
        comparison.only_left += 1
        return Difference(key, "only-left")
    if parts := differences_of(stored, other):
        comparison.differ += 1
        return Difference(key, "differ", tuple(parts))
    comparison.same += 1
    return None


def _only_right(
    left: Backend, right: Backend, comparison: Comparison, prefix: str, watch: Callable[[Comparison], None]
) -> Generator[Difference]:
    with closing(right.scan(prefix, values=False)) as pages:
        for page in pages:
            keys = [key for key, _ in page]
            missing = [key for key, stored in zip(keys, _asked(left, keys), strict=True) if stored is None]
            # Those that expired since they were listed are no difference.
            there = right.get_many(missing)
            for key, stored in zip(missing, there, strict=True):
                if stored is not None:
                    comparison.only_right += 1
                    yield Difference(key, "only-right")
            watch(comparison)

"""What one worker's keys must hold, and what it does next: the soak's memory, apart from the code under test."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from langchain_kv.errors import PartialWriteError, StoreError

__all__ = ["Ledger", "Operation", "value_of"]

KEYS = 60
SHARES = {"mget": 36, "mset": 36, "mdelete": 16, "yield_keys": 6, "yield_items": 6}
SIZES = [1, 1, 2, 4, 5, 12, 30, 50]


def value_of(number: int) -> dict[str, Any]:
    """Return the value that a number stands for."""
    return {"n": number, "text": "é☃x" * (number * 37 % 400)}


@dataclass
class Operation:
    """A call of a store.

    Attributes:
        kind: the method.
        keys: what it is about; for a scan, the worker's keys.
        numbers: what an ``mset`` stores, by key.
        limit: after how many items a scan is left, or None for all.
    """

    kind: str
    keys: list[str]
    numbers: dict[str, int] = field(default_factory=dict)
    limit: int | None = None

    @property
    def pairs(self) -> list[tuple[str, Any]]:
        return [(key, value_of(number)) for key, number in self.numbers.items()]


class Ledger:
    """One worker's: it alone writes these keys.

    Attributes:
        possible: the numbers that may be stored, by key; None stands for nothing stored.
        wrong: what was read and cannot be, in words.
    """

    def __init__(self, worker: str, seed: int) -> None:
        self._random = random.Random(f"{seed} {worker}")
        self.prefix = f"{worker}-"
        self.keys = [f"{self.prefix}{number}" for number in range(KEYS)]
        self.possible: dict[str, set[int | None]] = {key: {None} for key in self.keys}
        self._last = 0
        self.operations: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []

    def next(self) -> Operation:
        """Choose what to do."""
        kind = self._random.choices(list(SHARES), list(SHARES.values()))[0]
        self.operations[kind] += 1
        if kind.startswith("yield"):
            return Operation(kind, self.keys, limit=self._random.choice([None, None, 3]))
        keys = self._random.sample(self.keys, self._random.choice(SIZES))
        operation = Operation(kind, keys)
        if kind == "mset":
            for key in keys:
                self._last += 1
                operation.numbers[key] = self._last
        return operation

    def is_to_be_cancelled(self) -> float | None:
        """Return after how many seconds an asynchronous operation is cancelled, mostly None."""
        return self._random.uniform(0, 0.05) if self._random.random() < 0.06 else None

    # -- what became of it ------------------------------------------------------------------------------------------

    def succeeded(self, operation: Operation, result: Any) -> None:
        """Note an operation that returned; check what it read."""
        if operation.kind in ("mset", "mdelete"):
            for key in operation.keys:
                self.possible[key] = {operation.numbers.get(key)}
        elif operation.kind == "mget":
            for key, value in zip(operation.keys, result, strict=True):
                self._check(operation.kind, key, value)
        else:
            self._check_scan(operation, result)

    def failed(self, operation: Operation, error: BaseException) -> None:
        """Note an operation that raised; it may only be an error of this package."""
        self.errors[type(error).__name__] += 1
        if not isinstance(error, StoreError):
            self.wrong.append(f"{operation.kind} raised {type(error).__name__}: {error}")
        if isinstance(error, PartialWriteError):
            for each in error.errors.values():
                self.errors[f"  of which {type(each).__name__}"] += 1
            named = [*error.written, *error.unwritten, *error.unknown]
            if sorted(named) != sorted(operation.keys):
                self.wrong.append(f"{operation.kind}: PartialWriteError does not name each key once")
            for key in error.written:
                self.possible[key] = {operation.numbers.get(key)}
            self._unknown(operation, error.unknown)
        elif getattr(error, "applied", None) is None:
            self._unknown(operation, operation.keys)
        elif error.applied:  # type: ignore[attr-defined]
            self.wrong.append(f"{operation.kind} failed, and says that it was done")

    def cancelled(self, operation: Operation) -> None:
        """Note an operation whose task was cancelled."""
        self.errors["(cancelled)"] += 1
        self._unknown(operation, operation.keys)

    def _unknown(self, operation: Operation, keys: Any) -> None:
        if operation.kind in ("mset", "mdelete"):
            for key in keys:
                self.possible[key].add(operation.numbers.get(key))

    def _check(self, where: str, key: str, value: Any) -> None:
        number = None if value is None else value.get("n")
        if number not in self.possible[key]:
            self.wrong.append(
                f"{where}: {key} holds {number}, and can only hold {sorted(map(str, self.possible[key]))}"
            )
        elif number is not None and value != value_of(number):
            self.wrong.append(f"{where}: the value of {key} is garbled")

    def _check_scan(self, operation: Operation, items: list[Any]) -> None:
        pairs = [(item, None) if isinstance(item, str) else item for item in items]
        found = dict(pairs)
        if len(found) < len(pairs):
            self.wrong.append(f"{operation.kind}: a key came twice")
        for key, value in pairs:
            if key not in self.possible or self.possible[key] == {None}:
                self.wrong.append(f"{operation.kind}: {key} came, and is not there")
            elif operation.kind == "yield_items":
                self._check(operation.kind, key, value)
        if operation.limit is None:
            for key in self.keys:
                if None not in self.possible[key] and key not in found:
                    self.wrong.append(f"{operation.kind}: {key} did not come, and is there")

"""What was called, what came of it, and in which order: the record of one run, for the checker and for people."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from langchain_kv.errors import PartialWriteError, StoreError
from simulation.linearizability import ABSENT, Read, Violation, Write, check

__all__ = ["History", "Operation", "Step"]

Kind = Literal["get", "put", "delete", "keys", "items"]


class Step(NamedTuple):
    """One call that a client is to make.

    Attributes:
        number: unlike that of any other of the history.
        client: which of the clients makes it.
        kind: which call.
        pairs: what is written; the other kinds have None in the place of a value.
        prefix: of a scan.
        pause_s: how long the client waits first.
        patience_s: after which it cancels the call; None waits for ever.
        take: how many items of a scan it wants; None means all.
    """

    number: int
    client: int
    kind: Kind
    pairs: tuple[tuple[str, Any], ...] = ()
    prefix: str = ""
    pause_s: float = 0.0
    patience_s: float | None = None
    take: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for key, _ in self.pairs))


@dataclass
class Operation:
    """A call that was made. Times are the history's ticks.

    Attributes:
        fates: of a write: what it said of each key: "written", "unwritten" or "unknown".
        seen: of a read: what it found, by key.
        troubled: keys of which some request did not get its own, plain answer at once.
        effects: when the service carried out something of it, by key.
    """

    step: Step
    invoked: int
    returned: int | None = None
    ending: str = ""
    fates: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    troubled: set[str] = field(default_factory=set)
    effects: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def told(self, key: str | None = None) -> str:
        """Return a line on the call; with ``key``, on what it had to do with that key."""
        step = self.step
        asked = [f"{name}={value}" if step.kind == "put" else name for name, value in step.pairs]
        what = " ".join(asked) if step.pairs else repr(step.prefix)
        answered = {**self.fates, **self.seen}
        if key is not None:
            answered = {name: value for name, value in answered.items() if name == key}
        answer = ", ".join(f"{name}: {value}" for name, value in answered.items())
        effects = {name: ticks for name, ticks in self.effects.items() if key in (None, name)}
        return (
            f"[{self.invoked:>4} ..{self.returned or 0:>4}] client {step.client}, call {step.number}:"
            f" {step.kind} {what} -> {self.ending}{f', {answer}' if answer else ''}"
            f"{f'; carried out at {effects}' if effects else ''}"
            + (f"; faults: {', '.join(self.faults)}" if self.faults else "")
        )


class History:
    """The record of one run."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.operations: list[Operation] = []
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.complaints: list[str] = []
        """Violations that show without the checker."""
        self.final: dict[str, Any] = {}
        self.tick = itertools.count(1).__next__

    # -- recording ----------------------------------------------------------------------------------------------

    def begin(self, step: Step) -> Operation:
        operation = Operation(step, self.tick())
        self.operations.append(operation)
        return operation

    def succeed(self, operation: Operation, seen: dict[str, Any]) -> None:
        operation.ending = "ok"
        operation.seen = seen
        if operation.step.kind in ("put", "delete"):
            operation.fates = dict.fromkeys(operation.step.keys, "written")
        operation.returned = self.tick()

    def fail(self, operation: Operation, error: BaseException) -> None:
        """Note what a call raised: an error of the package, or that the client lost patience."""
        operation.ending = type(error).__name__
        if operation.step.kind in ("put", "delete"):
            operation.fates = self._fates(operation.step, error)
        operation.returned = self.tick()

    def _fates(self, step: Step, error: BaseException) -> dict[str, str]:
        if isinstance(error, PartialWriteError):
            named = {"written": error.written, "unwritten": error.unwritten, "unknown": error.unknown}
            pairs = [(key, fate) for fate, keys in named.items() for key in keys]
            if sorted(key for key, _ in pairs) != sorted(step.keys):
                self.complaints.append(f"call {step.number}: the error names {pairs}, the call had {step.keys}")
            return dict(pairs)
        applied = error.applied if isinstance(error, StoreError) else None
        return dict.fromkeys(step.keys, {True: "written", False: "unwritten", None: "unknown"}[applied])

    # -- judging ------------------------------------------------------------------------------------------------

    def violations(self, *, may_repeat: bool) -> list[str]:
        """Return what must not have happened, each as a text with all that concerns it.

        Args:
            may_repeat: whether a write that was sent again may take effect again, until its last request is through.
        """
        found = list(self.complaints)
        for operation in self.operations:
            for key, fate in operation.fates.items():
                if fate == "unwritten" and key in operation.effects:
                    found.append(
                        f"call {operation.step.number} says that {key} was not written, and it was:\n"
                        + "\n".join(self._story(key, operation))
                    )
        for key in self.keys:
            violation = check(*self._of_key(key, may_repeat))
            if violation is not None:
                found.append(self._told(key, violation))
        return found

    def _of_key(self, key: str, may_repeat: bool) -> tuple[list[Write], list[Read]]:
        writes, reads = [], []
        for operation in self.operations:
            returned = operation.returned or 0
            if key in operation.seen:
                reads.append(Read(operation, operation.invoked, returned, _test(operation, key)))
            fate = operation.fates.get(key, "unwritten")
            if fate == "unwritten":
                continue
            repeats = may_repeat and (fate == "unknown" or key in operation.troubled)
            last = max(returned, *operation.effects.get(key, [0]))
            value = dict(operation.step.pairs)[key] if operation.step.kind == "put" else ABSENT
            writes.append(
                Write(
                    operation,
                    operation.invoked,
                    returned if fate == "written" else None,
                    last if repeats or fate == "unknown" else None,
                    value,
                )
            )
        end = self.tick()
        final = self.final.get(key, ABSENT)
        reads.append(Read("what is stored in the end", end, end, lambda value: value == final))
        return writes, reads

    def _told(self, key: str, violation: Violation) -> str:
        who = violation.who
        told = f"call {who.step.number}" if isinstance(who, Operation) else f"{who}: {self.final.get(key, ABSENT)}"
        possible = ", ".join(map(str, violation.possible)) or "nothing"
        lines = self._story(key, who if isinstance(who, Operation) else None)
        return f"{key}: {told} fits no order of the calls; the value could have been {possible}:\n" + "\n".join(lines)

    def _story(self, key: str, until: Operation | None) -> list[str]:
        """Return a line for each call that had to do with a key and began before another one ended."""
        end = until.returned if until is not None else None
        return [
            f"  {operation.told(key)}"
            for operation in self.operations
            if (key in operation.fates or key in operation.seen) and (end is None or operation.invoked < end)
        ]


def _test(operation: Operation, key: str) -> Callable[[Any], bool]:
    expected = operation.seen[key]
    if operation.step.kind == "keys":
        return lambda value: (value is not ABSENT) == expected
    return lambda value: value == expected

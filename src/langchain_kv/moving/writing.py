"""Values to a target, a batch at a time, with what is there already in view."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum

from langchain_kv.backends.base import Backend, Damaged, Record, Stored
from langchain_kv.errors import (
    DataAPIError,
    LimitError,
    PartialWriteError,
    StoreError,
    UnknownCollectionError,
    UnknownKeyspaceError,
    UsageError,
)
from langchain_kv.moving.tally import Tally
from langchain_kv.moving.values import as_bytes, differences_of, record_of
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import KeyRule, check_key, shown

__all__ = ["OnExists", "Writer"]


class OnExists(Enum):
    """What is done with a key that is there with something else. One that is there equal is left, always.

    Attributes:
        FAIL: nothing more is written.
        SKIP: it stays as it is.
        REPLACE: it is replaced.
    """

    FAIL = "fail"
    SKIP = "skip"
    REPLACE = "replace"


class Writer:
    """Writes values to a target. It looks first, so what is there equal is not written again: whatever ended too early
    is simply done again. What others write between the look and the write is not seen.

    Args:
        target: where to. What holds its values is made with the first batch, where it is missing.
        on_exists: see there.
        bytes_only: whether text of the target is base64 of bytes, as stores of bytes keep them in documents.
        may_repeat: whether a key may come again in a later batch, as in dumps; a dry run remembers them all then.
        dry_run: whether it only looks, and counts what it would do; what is missing to hold values is then empty.

    Attributes:
        tally: what became of the values so far, also after an error.
    """

    def __init__(
        self,
        target: Backend,
        on_exists: OnExists,
        *,
        bytes_only: bool = False,
        may_repeat: bool = False,
        dry_run: bool = False,
    ) -> None:
        self.tally = Tally()
        self._target = target
        self._on_exists = on_exists
        self._bytes_only = bytes_only
        self._dry_run = dry_run
        self._rule = KeyRule(target.key_max_bytes, target.allows_empty_key)
        self._is_open = False
        self._is_writable = False
        self._may_repeat = may_repeat
        self._would_be: dict[str, bytes] = {}

    def write(self, items: Sequence[tuple[str, Stored]]) -> None:
        """Write a batch of values, of which each has another key. Those that the target refuses are counted.

        Raises:
            DocumentExistsError: a key is there, and that is to fail; nothing of the batch is written.
            StoreError: the target failed, or refuses more than ``FAILURES_MAX``.
        """
        if not self._is_open:
            self._look() if self._dry_run else self._target.open()
            self._is_open = True
        self.tally.read += len(items)
        given = {key: (found, record) for key, found in items if (record := self._record(key, found)) is not None}
        new, others = self._sorted(given)
        self._put(new, "written")
        self._put(others, "replaced")

    def _look(self) -> None:
        """Refuse what opening the target would be refused for: what is missing, and cannot be made."""
        try:
            self._target.get_many([])
        except (UnknownCollectionError, UnknownKeyspaceError):
            self._target.check_writable()

    def _record(self, key: str, stored: Stored) -> Record | None:
        """Return the record of a value; None where there can be none, which is counted."""
        if isinstance(stored, Damaged):
            self.tally.fail(key, stored.reason)
            return None
        if stored.expires_at_ms is not None and stored.expires_at_ms <= now_ms():
            self.tally.skipped += 1
            return None
        try:
            return record_of(check_key(key, self._rule), stored, self._target)
        except UsageError as error:
            self.tally.fail(key, str(error))
            return None

    def _sorted(self, given: dict[str, tuple[Stored, Record]]) -> tuple[list[Record], list[Record]]:
        """Return the records whose keys are not there, and those that are to take the place of something else."""
        new: list[Record] = []
        others: list[Record] = []
        for (key, (stored, record)), other in zip(given.items(), self._there(list(given)), strict=True):
            would_be = self._would_be.get(key)
            if other is None and would_be is None:
                new.append(record)
            elif would_be == _mark(record) if would_be or other is None else not differences_of(stored, other):
                self.tally.same += 1
            elif self._on_exists is OnExists.SKIP:
                self.tally.skipped += 1
            elif self._on_exists is OnExists.REPLACE:
                others.append(record)
            else:
                raise _exists(key)
        return new, others

    def _there(self, keys: Sequence[str]) -> Sequence[Stored | None]:
        try:
            found = self._target.get_many(keys)
        except (UnknownCollectionError, UnknownKeyspaceError):
            if self._dry_run:
                return [None] * len(keys)
            raise
        if not self._bytes_only:
            return found
        (page,) = as_bytes([list(zip(keys, found, strict=True))])
        return [stored for _, stored in page]

    def _put(self, records: Sequence[Record], done: str) -> None:
        if not records:
            return
        try:
            self._check(records) if self._dry_run else self._target.put_many(records)
        except PartialWriteError as error:
            self._count(done, len(error.written))
            for key, reason in error.errors.items():
                if key in error.unknown or not _is_about_values(reason):
                    raise
                self.tally.fail(key, str(reason))
        except StoreError as error:
            if not _is_about_values(error):
                raise
            if len(records) == 1:
                self.tally.fail(records[0].key, str(error))
                return
            half = len(records) // 2  # most targets refuse a whole batch for one of its values
            self._put(records[:half], done)
            self._put(records[half:], done)
        else:
            self._count(done, len(records))

    def _check(self, records: Sequence[Record]) -> None:
        """Do as if these were written."""
        if not self._is_writable:
            self._target.check_writable()
            self._is_writable = True
        with suppress(UnknownCollectionError, UnknownKeyspaceError):
            self._target.check_many(records)
        if self._may_repeat:
            self._would_be.update((record.key, _mark(record)) for record in records)

    def _count(self, done: str, number: int) -> None:
        setattr(self.tally, done, getattr(self.tally, done) + number)


def _is_about_values(error: StoreError) -> bool:
    """Tell whether the target refuses a value or a key, and may take others."""
    return isinstance(error, UsageError | LimitError) or (isinstance(error, DataAPIError) and error.scope == "DOCUMENT")


def _mark(record: Record) -> bytes:
    """Return what stands for a record that a dry run would have written: little, as there may be many."""
    what = f"{record.kind} {record.expires_at_ms} ".encode()
    return hashlib.blake2b(what + record.payload, digest_size=16).digest()


def _exists(key: str) -> DataAPIError:
    return DataAPIError.of(
        "DOCUMENT_ALREADY_EXISTS",
        f"Key {shown(key)} is there already, with something else: skip or replace such keys (--on-exists skip, or"
        " replace), or give a target without them.",
    )

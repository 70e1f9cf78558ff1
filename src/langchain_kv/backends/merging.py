"""Storing records, merged with those that are there, by adding and updating: for backends with nothing faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from langchain_kv.errors import PartialWriteError, StoreError
from langchain_kv.values.keys import shown
from langchain_kv.values.records import Record

__all__ = ["Merging"]


class Merging:
    """One call on its way: first each record is added where its key is absent, then those that exist are updated.

    Args:
        records: what is to be stored, each key once.
        merge: as of ``Backend.merge_many``.

    Attributes:
        left: the keys to be updated, each with its change: those that were not absent.
    """

    def __init__(self, records: Sequence[Record], merge: Callable[[Record, Any], Record]) -> None:
        self._records = records
        self._merge = merge
        self._errors: dict[str, StoreError] = {}
        self._written: set[str] = set()
        self.left: list[tuple[str, Callable[[Any], Record | None]]] = []

    def note_added(self, added: Sequence[bool]) -> None:
        """Take what ``add_many`` answered."""
        self._written.update(record.key for record, is_new in zip(self._records, added, strict=True) if is_new)
        self._note_left()

    def note_failed_adding(self, error: PartialWriteError) -> None:
        """Take what it raised: what is in none of the error's groups was there."""
        self._written.update(error.written)
        self._errors.update(error.errors)
        self._note_left()

    def _note_left(self) -> None:
        for record in self._records:
            if record.key not in self._written and record.key not in self._errors:
                self._written.add(record.key)
                self.left.append((record.key, partial(self._changed, record)))

    def _changed(self, record: Record, stored: Any) -> Record:
        return record if stored is None else self._merge(record, stored)

    def note_failed(self, key: str, error: StoreError) -> None:
        """Take what an update raised."""
        self._written.discard(key)
        self._errors[key] = error.errors.get(key, error) if isinstance(error, PartialWriteError) else error

    def finish(self) -> None:
        """Raise the errors, if there were any."""
        if not self._errors:
            return
        if len(self._records) == 1:
            raise next(iter(self._errors.values()))
        keys = [record.key for record in self._records if record.key in self._errors]
        raise PartialWriteError.of(
            "stored",
            written=tuple(record.key for record in self._records if record.key in self._written),
            unwritten=tuple(key for key in keys if self._errors[key].applied is False),
            unknown=tuple(key for key in keys if self._errors[key].applied is not False),
            errors=self._errors,
            shown=shown,
        )

"""What became of each key of a batch of writes, and which error says so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from langchain_kv.backends.dataapi.retry import Call
from langchain_kv.errors import (
    AuthError,
    DataAPIError,
    DocumentExistsError,
    PartialWriteError,
    StoreClosedError,
    StoreError,
    TransportError,
)
from langchain_kv.runtime.slices import SLICE_KEYS, Steps, parts
from langchain_kv.values.keys import shown

__all__ = ["BatchOutcome"]


class BatchOutcome:
    """What became of each key of a batch of writes.

    Attributes:
        stop: an error that concerns the whole operation: what was not sent yet is not to be sent.
        added: of an operation that adds, the keys that were absent and are stored now.
        there: of the same, the keys that were there, and were left as they are.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.stop: StoreError | None = None
        self.added: set[str] = set()
        self.there: set[str] = set()
        self._keys = keys
        self._errors: dict[str, StoreError] = {}
        self._unsent: set[str] = set()
        self._doubtful: set[str] = set()

    @classmethod
    def of(cls, call: Call, keys: Sequence[str]) -> tuple[BatchOutcome, Collection[str] | None]:
        """Return the outcome of a call, and which keys are to be done; None: all of them.

        Where the call is run again with another token, the outcome goes on, and those are the keys that failed.
        """
        if call.outcome is None:
            call.outcome = cls(keys)
        outcome: BatchOutcome = call.outcome
        left = outcome._errors
        if not left:
            return outcome, None
        outcome.doubt(key for key in left if not outcome._is_unwritten(key))
        outcome.stop, outcome._errors, outcome._unsent = None, {}, set()
        return outcome, left

    def doubt(self, keys: Iterable[str]) -> None:
        """Note that a request may have written the keys, whatever the answer to the next one says."""
        self._doubtful.update(keys)

    def fail(self, keys: Iterable[str], error: StoreError) -> None:
        """Note that the keys were not, or may not have been, written."""
        self._errors.update(dict.fromkeys(keys, error))
        concerns_all = isinstance(error, TransportError | StoreClosedError | AuthError) or (
            isinstance(error, DataAPIError) and error.scope == "SCHEMA"
        )
        if concerns_all and self.stop is None:
            self.stop = error

    def find_there(self, keys: Iterable[str]) -> None:
        """Note that keys to be added are there: by another, or, where an answer was lost, by this very call."""
        for key in keys:
            if key not in self._doubtful:
                self.there.add(key)
                continue
            error = DataAPIError.of(
                "DOCUMENT_ALREADY_EXISTS",
                f"The answer to the insert of key {shown(key)} was lost, and when it was sent again the key was there:"
                " by this call, or by another client's. Read it to see what it holds.",
            )
            error.applied = None
            self._errors[key] = error

    def is_stopped(self, keys: Sequence[str]) -> bool:
        """Tell whether nothing more is to be sent, and if so note the keys as unwritten."""
        if self.stop is None:
            return False
        self._errors.update(dict.fromkeys(keys, self.stop))
        self._unsent.update(keys)
        return True

    def _is_unwritten(self, key: str) -> bool:
        return (key in self._unsent or self._errors[key].applied is False) and key not in self._doubtful

    def settle(self, done: str) -> Steps[None]:
        """Raise the error that the whole batch failed for, or one that names each key's; every request has ended."""
        if not self._errors:
            return
        unwritten: list[str] = []
        unknown: list[str] = []
        reasons: set[tuple[type[StoreError], str]] = set()
        for number, (key, error) in enumerate(self._errors.items(), 1):
            (unwritten if self._is_unwritten(key) else unknown).append(key)
            reasons.add((type(error), getattr(error, "code", "")))
            if not number % SLICE_KEYS:
                yield
        first = next(iter(self._errors.values()))
        is_lost = isinstance(first, DocumentExistsError) and unknown
        if len(self._errors) == len(self._keys) and len(reasons) == 1 and not (unwritten and unknown) and not is_lost:
            first.applied = None if unknown else False
            raise first
        written: list[str] = []
        there: list[str] = []
        for some in parts(self._keys, SLICE_KEYS):
            written += [key for key in some if key not in self._errors and key not in self.there]
            there += [key for key in some if key in self.there and key not in self._errors]
            yield
        raise PartialWriteError.of(
            done,
            written=tuple(written),
            unwritten=(*unwritten, *there),
            unknown=tuple(unknown),
            errors=self._errors,
            shown=shown,
            is_repeatable=done != "added",
        )

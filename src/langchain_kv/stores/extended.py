"""What a store has beyond LangChain's interface: items, adding, updating, counting, clearing, expiry, namespaces."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Generic, TypeVar

from langchain_kv.backends.base import Found, Stored
from langchain_kv.errors import UsageError
from langchain_kv.runtime.slices import Steps, in_slices, whole
from langchain_kv.stores.arguments import (
    achecked_pairs,
    checked_function,
    checked_labels,
    checked_pairs,
    checked_prefix,
)
from langchain_kv.stores.coding import decode, encode, encode_pairs, usual_of
from langchain_kv.stores.damage import raise_damaged
from langchain_kv.stores.expiry import checked_ttl, moment_after, refresh_due
from langchain_kv.stores.life import OpenedStore
from langchain_kv.values.keys import check_key
from langchain_kv.values.namespaces import namespace_of, namespaces_below, subtree_prefix
from langchain_kv.values.records import Record

__all__ = ["ExtendedStore"]

V = TypeVar("V")


class ExtendedStore(OpenedStore, ABC, Generic[V]):
    """The verbs of a store that LangChain's interface does not have."""

    # -- how values are kept ----------------------------------------------------------------------------------------

    @abstractmethod
    def encode_value(self, value: V | None) -> Any:
        """Return what keeps ``value``: a JSON value, or bytes."""

    @abstractmethod
    def decode_value(self, value: Any) -> V | None:
        """Return the value of which ``encode_value`` made this one. None stands for a missing value.

        Raises:
            langchain_kv.values.codecs.UndecodableError: it is not what ``encode_value`` makes; the message says why,
                and is shown with the key.
        """

    def _records(self, pairs: Mapping[str, V], moment: int | None) -> Steps[list[Record]]:
        """Return the record of each pair, whose key was checked."""
        return encode_pairs(self.encode_value, pairs, moment, usual_of(self.encode_value))

    # -- items --------------------------------------------------------------------------------------------------------

    def yield_items(self, *, prefix: str | None = None) -> Iterator[tuple[str, V | None]]:
        """Yield (key, value) of the keys that start with ``prefix``, page by page.

        Raises:
            DamagedValueError: at the end, after every good item, where stored values could not be read; it has no
                ``.values``.
        """
        self._begin()
        damaged: dict[str, str] = {}
        with closing(self._backend.scan(self._checked_prefix(prefix), values=True)) as pages:
            for page in pages:
                for key, stored in page:
                    value = decode(self.decode_value, key, stored, damaged)
                    if key not in damaged:
                        yield key, value
        raise_damaged(damaged, {})

    async def ayield_items(self, *, prefix: str | None = None) -> AsyncIterator[tuple[str, V | None]]:
        """As ``yield_items``."""
        await self._abegin()
        damaged: dict[str, str] = {}
        async with aclosing(self._backend.ascan(self._checked_prefix(prefix), values=True)) as pages:
            async for page in pages:
                for key, stored in page:
                    value = decode(self.decode_value, key, stored, damaged)
                    if key not in damaged:
                        yield key, value
        raise_damaged(damaged, {})

    # -- adding and updating ------------------------------------------------------------------------------------------

    def add(self, key_value_pairs: Iterable[tuple[str, V]], *, ttl_s: float | None = None) -> list[str]:
        """Store the pairs whose keys are absent, each in one step with seeing that; leave the others as they are.

        Of many who add one key at a time, one stores it.

        Args:
            key_value_pairs: of a repeated key the first is stored.
            ttl_s: as of ``mset``.

        Returns:
            The keys that were absent and are stored now, in the order of the pairs: none makes an empty list.

        Raises:
            PartialWriteError: over HTTP, some failed; ``.unknown`` has those of which that cannot be known, such as
                one whose answer was lost, and that was there when it was sent again.
        """
        moment = self._moment(ttl_s)
        checked = checked_pairs(key_value_pairs, self._key_rule, verb="add", first_wins=True)
        records = whole(self._records(checked, moment))
        self._begin()
        return _where(records, self._backend.add_many(records)) if records else []

    async def aadd(self, key_value_pairs: Iterable[tuple[str, V]], *, ttl_s: float | None = None) -> list[str]:
        """As ``add``."""
        moment = self._moment(ttl_s)
        checked = await achecked_pairs(key_value_pairs, self._key_rule, verb="add", first_wins=True)
        records = await in_slices(self._records(checked, moment))
        await self._abegin()
        return _where(records, await self._backend.aadd_many(records)) if records else []

    def update(self, key: str, f: Callable[[V | None], V | None], *, ttl_s: float | None = None) -> V | None:
        """Change the value of one key in one step with reading it: no other change comes between.

        Args:
            key: the key.
            f: sees the value, or None where there is none, and answers the new one, or None to have none. It may be
                called again where another client was faster, and holds up other writers: it should be quick, do nothing
                but compute, and not use the store. What it raises is passed on, and nothing is changed.
            ttl_s: as of ``mset``; where neither the call nor the store says it, a value that expires keeps its moment.

        Returns:
            What ``f`` answered.

        Raises:
            UnsupportedError: this target cannot: a Data API's collection that was not made with ``atomic=True``. See
                ``add``.
            PartialWriteError: over HTTP, an answer was lost, and another client has written the key since.
            DamagedValueError: what is there cannot be read.
        """
        change = self._change(key, f, ttl_s)
        self._begin()
        self._backend.update(change.key, change)
        return change.answer

    async def aupdate(self, key: str, f: Callable[[V | None], V | None], *, ttl_s: float | None = None) -> V | None:
        """As ``update``; ``f`` is a plain function here, too, and may run in another thread."""
        change = self._change(key, f, ttl_s)
        await self._abegin()
        await self._backend.aupdate(change.key, change)
        return change.answer

    # -- all the keys -------------------------------------------------------------------------------------------------

    def count(self, prefix: str | None = None) -> int:
        """Return how many keys start with ``prefix``; without one, how many there are. It lists them."""
        checked = self._checked_prefix(prefix)
        self._begin()
        return self._backend.count(checked)

    async def acount(self, prefix: str | None = None) -> int:
        """As ``count``."""
        checked = self._checked_prefix(prefix)
        await self._abegin()
        return await self._backend.acount(checked)

    def clear(self, prefix: str | None = None) -> None:
        """Remove the keys that start with ``prefix``; without one, all of them. The collection stays.

        Keys that others write meanwhile may stay.
        """
        checked = self._checked_prefix(prefix)
        self._begin()
        self._backend.clear(checked)

    async def aclear(self, prefix: str | None = None) -> None:
        """As ``clear``."""
        checked = self._checked_prefix(prefix)
        await self._abegin()
        await self._backend.aclear(checked)

    def purge(self) -> int:
        """Remove for good what has expired in the whole collection; return how many keys that were.

        What has expired is not served and not listed anyway: this gives its room back. Over HTTP the whole collection
        is listed for it, and a key that another client writes anew at that moment may be removed.
        """
        self._begin()
        return self._backend.purge()

    async def apurge(self) -> int:
        """As ``purge``."""
        await self._abegin()
        return await self._backend.apurge()

    def namespaces(self, *, prefix: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """Return the namespaces below this store that have a key, sorted; ``namespace(*labels)`` opens one.

        All their keys are listed for it.

        Args:
            prefix: labels; only namespaces that begin with them.
        """
        labels = self._labels_below(prefix)
        self._begin()
        with closing(self._connection.backend.scan(subtree_prefix(labels), values=False)) as pages:
            found = {namespace_of(key) for page in pages for key, _ in page}
        return self._relative(namespaces_below(found, labels))

    async def anamespaces(self, *, prefix: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """As ``namespaces``."""
        labels = self._labels_below(prefix)
        await self._abegin()
        async with aclosing(self._connection.backend.ascan(subtree_prefix(labels), values=False)) as pages:
            found = {namespace_of(key) async for page in pages for key, _ in page}
        return self._relative(namespaces_below(found, labels))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _moment(self, ttl_s: float | None) -> int | None:
        return moment_after(self._options.ttl_s if checked_ttl(ttl_s) is None else ttl_s)

    def _checked_prefix(self, prefix: str | None) -> str:
        return checked_prefix(prefix, self._key_rule)

    def _change(self, key: str, f: Callable[[V | None], V | None], ttl_s: float | None) -> _Change[V]:
        is_given = checked_ttl(ttl_s) is not None or self._options.ttl_s is not None
        return _Change(self, check_key(key, self._key_rule), checked_function(f), self._moment(ttl_s), not is_given)

    def _labels_below(self, prefix: Sequence[str]) -> tuple[str, ...]:
        return (*self._options.labels, *checked_labels(prefix))

    def _relative(self, namespaces: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        own = len(self._options.labels)
        return [labels[own:] for labels in namespaces if len(labels) > own]

    def _refreshed(self, keys: list[str], stored: Sequence[Stored | None]) -> tuple[list[str], int]:
        """Return which of the keys that were read live longer for it, and until when."""
        ttl_s = self._options.ttl_s
        moment = moment_after(ttl_s)
        if ttl_s is None or moment is None:
            return [], 0
        pairs = zip(keys, stored, strict=True)
        return [
            key for key, one in pairs if isinstance(one, Found) and refresh_due(one.expires_at_ms, moment, ttl_s)
        ], moment


def _where(records: list[Record], added: list[bool]) -> list[str]:
    return [record.key for record, is_added in zip(records, added, strict=True) if is_added]


class _Change(Generic[V]):
    """A function of values as one of records.

    Attributes:
        key: whose value it changes.
        answer: what the function answered last.
    """

    def __init__(
        self,
        store: ExtendedStore[V],
        key: str,
        f: Callable[[V | None], V | None],
        moment: int | None,
        keeps_moment: bool,
    ) -> None:
        self.key = key
        self.answer: V | None = None
        self._store = store
        self._f = f
        self._moment = moment
        self._keeps_moment = keeps_moment

    def __call__(self, stored: Stored | None) -> Record | None:
        damaged: dict[str, str] = {}
        value = decode(self._store.decode_value, self.key, stored, damaged)
        raise_damaged(damaged, {})
        self.answer = new = self._f(value)
        if new is None:
            return None
        if inspect.iscoroutine(new):
            new.close()
            raise UsageError("update takes a plain function, got one that returns a coroutine: nothing is awaited.")
        kept = stored.expires_at_ms if self._keeps_moment and isinstance(stored, Found) else self._moment
        return encode(self._store.encode_value, self.key, new, kept)

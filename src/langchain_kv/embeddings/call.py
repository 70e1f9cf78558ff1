"""One call of a cache: its texts are looked up in pages, and those that are missing are embedded in batches."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import compress
from operator import not_
from typing import Any, Final, Literal, NamedTuple, cast

from langchain_core.stores import BaseStore

from langchain_kv.embeddings.answers import VectorAnswer
from langchain_kv.embeddings.tally import EmbeddingStatistics, Tally
from langchain_kv.embeddings.vectors import Unfit, are_vectors, count_of, pack, vector_of
from langchain_kv.errors import BadVectorError, DamagedValueError, StoreClosedError, UsageError
from langchain_kv.runtime.callers import warn_caller
from langchain_kv.runtime.flights import Flight
from langchain_kv.runtime.plans import PAUSE, Plan, Step
from langchain_kv.runtime.slices import SLICE_BYTES, SLICE_KEYS, by_bytes, parts
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.values.keys import type_name

__all__ = ["Call", "OnStoreError", "Rules", "Shelf"]

OnStoreError = Literal["raise", "ignore"]
"""What a store's failure does to a call: it is raised, or the texts are embedded without the cache."""

PAGE: Final = 500
"""Texts that are looked up at once: what is read of them is in memory beside what is returned."""

_logger = logging.getLogger("langchain_kv")

Store = BaseStore[str, bytes]


class Rules:
    """What goes for every call of a cache.

    Attributes:
        name: the model's.
        dimensions: how many numbers a vector has; None: the first one tells.
        batch_size: how many texts the model is given at once.
        on_store_error: see ``OnStoreError``.
        tally: counts what calls do.
    """

    def __init__(self, name: str, dimensions: int | None, batch_size: int, on_store_error: OnStoreError) -> None:
        self.name = name
        self.dimensions = dimensions
        self.batch_size = batch_size
        self.on_store_error = on_store_error
        self.tally = Tally()


class Older(NamedTuple):
    """Where older vectors of a role are.

    Attributes:
        store: of JSON texts.
        key_of: the key of a text.
    """

    store: Store
    key_of: Callable[[str], str]


class Shelf(NamedTuple):
    """What calls of one role, documents or queries, work with.

    Attributes:
        store: where their vectors are.
        key_of: the key of a text.
        embed: has the model embed texts.
        aembed: the same for a coroutine.
        older: what is looked at for texts that the store does not have.
    """

    store: Store
    key_of: Callable[[str], str]
    embed: Callable[[list[str]], Any]
    aembed: Callable[[list[str]], Awaitable[Any]]
    older: Older | None

    @property
    def where(self) -> Hashable:
        """What tells this shelf from others of the process: caches of one place, collection and namespace share one."""
        return repr(self.store) if isinstance(self.store, KVBaseStore) else id(self.store)


_Item = tuple[str, str, int]
"""The key of a text's vector, the text, and the place of the vector in the answer."""


class Call:
    """What one call knows.

    Args:
        shelf: of its role.
        rules: of its cache.
        answer: where the vectors go.
        loop: the caller's event loop; None for a plain call.
    """

    def __init__(
        self, shelf: Shelf, rules: Rules, answer: VectorAnswer, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self._shelf = shelf
        self._rules = rules
        self._answer = answer
        self._flight = Flight((shelf.where, rules.on_store_error), loop)
        self._missing: list[_Item] = []
        self._elsewhere: dict[Flight, list[_Item]] = {}
        self._damaged: dict[str, str] = {}

    def run(self, texts: Sequence[str]) -> Plan[None]:
        """Put the vector of each text in its place of the answer."""
        distinct, places, repeats, sources = yield from _distinct(texts)
        with self._flight:
            for start in range(0, len(distinct), PAGE):
                page = slice(start, start + PAGE)
                yield from self._look_up((yield from self._items(distinct[page], places[page])))
                yield from self._embed_missing(self._rules.batch_size)
            yield from self._embed_missing(1)
            while self._elsewhere:
                for some in parts((yield from self._awaited()), PAGE):
                    yield from self._look_up(some)
                yield from self._embed_missing(1)
        self._warn_of_damage()
        for done, (place, source) in enumerate(zip(repeats, sources, strict=True)):
            if not done % SLICE_KEYS:
                yield PAUSE
            self._answer.repeat(place, source)

    def _items(self, texts: Sequence[str], places: Sequence[int]) -> Plan[list[_Item]]:
        items: list[_Item] = []
        for some in by_bytes(texts, len):
            if items:
                yield PAUSE
            items += zip(map(self._shelf.key_of, some), some, places[len(items) :], strict=False)
        return items

    # -- looking up ---------------------------------------------------------------------------------------------------

    def _look_up(self, items: Sequence[_Item]) -> Plan[None]:
        """Put what is stored of the items in its places; note the others as missing, or as another caller's."""
        elsewhere = self._flight.claim([key for key, _, _ in items])
        own = [item for item in items if item[0] not in elsewhere] if elsewhere else items
        for item in items if elsewhere else ():
            if item[0] in elsewhere:
                self._elsewhere.setdefault(elsewhere[item[0]], []).append(item)
        if not own:
            return
        keys = [key for key, _, _ in own]
        with self._flight.answering(keys):
            missing = yield from self._take(own, (yield from self._read(self._shelf.store, keys)))
            if missing and self._shelf.older is not None:
                missing = yield from self._take_older(missing, self._shelf.older)
        self._rules.tally.add(EmbeddingStatistics(hits=len(own) - len(missing), misses=len(missing)))
        self._missing += missing

    def _read(self, store: Store, keys: list[str]) -> Plan[list[bytes | None]]:
        try:
            stored: list[bytes | None] = yield Step.of(store.mget, store.amget, keys)
        except DamagedValueError as error:
            self._damaged.update(error.errors)
            return [error.values.get(key) for key in keys]
        except Exception as error:
            self._pass_over(error)
            return [None] * len(keys)
        self._rules.tally.add(EmbeddingStatistics(read_bytes=sum([len(value) for value in stored if value])))
        return stored

    def _take(self, items: Sequence[_Item], stored: Sequence[bytes | None]) -> Plan[list[_Item]]:
        """Put what is stored in its places; return the items of which nothing is that could be used."""
        if self._rules.dimensions is None:
            counts = [count for value in stored if (count := count_of(value))]
            self._rules.dimensions = max(set(counts), key=counts.count) if counts else None
        missing: list[_Item] = []
        done = 0
        for values in parts(stored, _per_slice(self._rules.dimensions or 1, self._answer.slice_bytes)):
            if done:
                yield PAUSE
            some = items[done : done + len(values)]
            done += len(values)
            usable = are_vectors(values, self._rules.dimensions)
            if all(usable):
                missing += self._placed(some, cast("Sequence[bytes]", values))
                continue
            for (key, _, _), value, is_usable in zip(some, values, usable, strict=True):
                if value is not None and not is_usable:
                    self._damaged[key] = self._what_is_wrong(value)
            missing += compress(some, map(not_, usable))
            missing += self._placed(list(compress(some, usable)), cast("list[bytes]", list(compress(values, usable))))
        return missing

    def _placed(self, items: Sequence[_Item], values: Sequence[bytes]) -> list[_Item]:
        """Put packed vectors of the right length in their places; return the items of those that hold NaN."""
        if not items:
            return []
        unsound = self._answer.put([place for _, _, place in items], values)
        keys = [key for key, _, _ in items]
        if not unsound:
            self._flight.land(keys, values)
            return []
        self._damaged.update((keys[at], "it holds NaN or an infinity") for at in unsound)
        is_sound = [at not in unsound for at in range(len(items))]
        self._flight.land(list(compress(keys, is_sound)), list(compress(values, is_sound)))
        return [items[at] for at in unsound]

    def _what_is_wrong(self, value: bytes) -> str:
        count = count_of(value)
        if count:
            return f"it has {count:,} numbers, not {self._rules.dimensions:,}"
        return "it is not in the form of a vector: another program wrote it, or it is damaged"

    def _take_older(self, items: Sequence[_Item], older: Older) -> Plan[list[_Item]]:
        """Put what the older cache has in its places, and keep it packed; return the items that it does not have."""
        keys = [older.key_of(text) for _, text, _ in items]
        stored = yield from self._read(older.store, keys)
        found = [(item, value) for item, value in zip(items, stored, strict=True) if value is not None]
        packed: list[tuple[_Item, bytes]] = []
        for some in by_bytes(found, _size_of_pair):
            yield PAUSE
            for item, value in some:
                vector = vector_of(value)
                short = vector if isinstance(vector, Unfit) else pack([vector])[0]
                if isinstance(short, Unfit):
                    self._damaged[item[0]] = f"in the older cache, {short.reason}"
                else:
                    packed.append((item, short))
        missing = yield from self._take([item for item, _ in packed], [value for _, value in packed])
        lost = {key for key, _, _ in missing}
        kept = [(item[0], value) for item, value in packed if item[0] not in lost]
        yield from self._keep(kept)
        self._rules.tally.add(EmbeddingStatistics(read_through=len(kept)))
        there = {key for key, _ in kept}
        return [item for item in items if item[0] not in there]

    def _awaited(self) -> Plan[list[_Item]]:
        """Wait for the flights of others; return the items that they did not get."""
        left = []
        elsewhere, self._elsewhere = self._elsewhere, {}
        for flight, items in elsewhere.items():
            keys = {key for key, _, _ in items}
            yield Step.of(flight.wait, flight.await_, keys)
            results = [flight.result(key, keys) for key, _, _ in items]
            missing = yield from self._take(items, results)
            self._rules.tally.add(EmbeddingStatistics(joined=len(items) - len(missing)))
            left += missing
        return left

    # -- embedding ----------------------------------------------------------------------------------------------------

    def _embed_missing(self, least: int) -> Plan[None]:
        """Embed what is missing, batch by batch, while there are at least so many texts."""
        while len(self._missing) >= least:
            size = self._rules.batch_size
            batch, self._missing = self._missing[:size], self._missing[size:]
            with self._flight.answering([key for key, _, _ in batch]):
                yield from self._embed(batch)

    def _embed(self, items: Sequence[_Item]) -> Plan[None]:
        texts = [text for _, text, _ in items]
        with self._flight.aboard():
            answered = yield Step.of(self._shelf.embed, self._shelf.aembed, texts)
        vectors = self._counted(answered, len(texts))
        self._rules.tally.add(EmbeddingStatistics(embedded=len(texts)))
        packed: list[bytes | Unfit] = []
        for some in parts(vectors, _per_slice(len(vectors[0]) if hasattr(vectors[0], "__len__") else SLICE_BYTES)):
            if packed:
                yield PAUSE
            packed += pack(some)
        packed = self._of_one_length(packed)
        fit = [isinstance(value, bytes) for value in packed]
        values = [value for value in packed if isinstance(value, bytes)]
        own = list(compress(items, fit))
        keys = [key for key, _, _ in own]
        yield from self._keep(list(zip(keys, values, strict=True)))
        if values:
            self._answer.put_fresh([place for _, _, place in own], list(compress(vectors, fit)), values)
        self._flight.land(keys, values)
        self._refuse([(item, value) for item, value in zip(items, packed, strict=True) if isinstance(value, Unfit)])

    def _counted(self, answered: Any, count: int) -> list[Any]:
        try:
            vectors = list(answered)
        except TypeError:
            raise BadVectorError(
                f"The model {self._rules.name!r} answered {type_name(answered)} for {count:,} texts, not a list of"
                " vectors. Nothing of it was cached."
            ) from None
        if len(vectors) != count:
            raise BadVectorError(
                f"The model {self._rules.name!r} answered {len(vectors):,} vectors for {count:,} texts: which is whose"
                " is not known. Nothing of it was cached."
            )
        return vectors

    def _of_one_length(self, packed: Sequence[bytes | Unfit]) -> list[bytes | Unfit]:
        """Return the same, with those of another length than the cache's vectors as unfit.

        Raises:
            BadVectorError: it is not known which length is right.
        """
        counts = {count_of(value) for value in packed if isinstance(value, bytes)}
        known = self._rules.dimensions
        if known is None and len(counts) > 1:
            lengths = " and ".join(map(str, sorted(counts)))
            raise BadVectorError(
                f"The model {self._rules.name!r} answered vectors of {lengths} numbers at once. Nothing of it was"
                " cached."
            )
        if known is None:
            self._rules.dimensions = known = max(counts, default=None)
        return [
            Unfit(
                f"it has {count:,} numbers, and the cache's vectors have {known:,}: give a model with other settings"
                " another name, or dimensions"
            )
            if isinstance(value, bytes) and (count := count_of(value)) != known
            else value
            for value in packed
        ]

    def _keep(self, pairs: Sequence[tuple[str, bytes]]) -> Plan[None]:
        if not pairs:
            return
        store = self._shelf.store
        try:
            yield Step.of(store.mset, store.amset, pairs)
        except Exception as error:
            self._pass_over(error)
        else:
            self._rules.tally.add(EmbeddingStatistics(written_bytes=sum([len(value) for _, value in pairs])))

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def _refuse(self, unfit: Sequence[tuple[_Item, Unfit]]) -> None:
        """Raise the one error of the vectors that a model answered and that are none."""
        if unfit:
            (_, _, place), why = unfit[0]
            raise BadVectorError(
                f"The model {self._rules.name!r} answered {len(unfit):,} vector(s) that cannot be kept; that of text"
                f" {place:,}: {why.reason}. These were not cached; the others of their batch were."
            )

    def _pass_over(self, error: Exception) -> None:
        """Count the failure of a store, or raise it."""
        if self._rules.on_store_error == "raise" or isinstance(error, UsageError | StoreClosedError):
            raise error
        self._rules.tally.add(EmbeddingStatistics(store_failures=1))
        _logger.debug("An embedding cache goes on without its store.", exc_info=error)
        if self._rules.tally.is_first_failure():
            warn_caller(
                f"The store of the embedding cache {self._rules.name!r} failed ({type_name(error)}), and texts are"
                " embedded without it. More such failures are only counted: see stats()."
            )

    def _warn_of_damage(self) -> None:
        if self._damaged:
            key, reason = next(iter(self._damaged.items()))
            warn_caller(
                f"{len(self._damaged):,} vector(s) in the cache {self._rules.name!r} cannot be used, and their texts"
                f" were embedded anew. Key {key!r}: {reason}."
            )


def _distinct(texts: Sequence[str]) -> Plan[tuple[Sequence[str], Sequence[int], Sequence[int], Sequence[int]]]:
    """Return each text once, its first places, all other places, and of each of those the first one of its text."""
    unique: set[str] = set()
    for some in parts(texts, SLICE_KEYS):
        if unique:
            yield PAUSE
        unique.update(some)
    if len(unique) == len(texts):
        return texts, range(len(texts)), (), ()
    del unique
    first: dict[str, int] = {}
    repeats, sources = array("q"), array("q")
    for start in range(0, len(texts), SLICE_KEYS):
        if start:
            yield PAUSE
        for place, text in enumerate(texts[start : start + SLICE_KEYS], start):
            source = first.setdefault(text, place)
            if source != place:
                repeats.append(place)
                sources.append(source)
    return list(first), array("q", first.values()), repeats, sources


def _per_slice(dimensions: int, size_bytes: int = SLICE_BYTES) -> int:
    """Return how many vectors of so many numbers are packed or read in one part, of so many bytes."""
    return min(SLICE_KEYS, size_bytes // (4 * dimensions + 1) + 1)


def _size_of_pair(pair: tuple[_Item, bytes]) -> int:
    return len(pair[1])

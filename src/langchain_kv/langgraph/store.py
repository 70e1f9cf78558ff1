"""LangGraph's long-term memory on every target: its ``BaseStore`` over a collection of records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
)

from langchain_kv.backends.base import Found, Record, Stored
from langchain_kv.errors import ConfigError, StoreError, UsageError
from langchain_kv.langgraph.items import (
    checked_put,
    damage_of,
    encode,
    item_of,
    key_of,
    name_items,
    ttl_s_of,
    with_vectors,
)
from langchain_kv.langgraph.listing import Listing, list_namespaces
from langchain_kv.langgraph.meaning import Index
from langchain_kv.langgraph.paging import Pages
from langchain_kv.langgraph.records import Access, Records, Writes
from langchain_kv.langgraph.searching import Question, search
from langchain_kv.langgraph.sweeping import Sweeper
from langchain_kv.places.arguments import Caller, Token
from langchain_kv.places.options import seconds
from langchain_kv.runtime.plans import PAUSE, Plan, arun, run
from langchain_kv.runtime.slices import Steps
from langchain_kv.stores.damage import raise_damaged
from langchain_kv.stores.expiry import moment_after, refresh_due
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values.keys import type_name

if TYPE_CHECKING:
    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.base import Place

__all__ = ["LangGraphStore"]

SWEEP_MINUTES: Final = 5.0
"""Between two sweeps, where nothing else is said."""


class LangGraphStore(BaseStore):
    """Long-term memory for LangGraph's agents, on every target: ``create_agent(store=LangGraphStore("sqlite:kv.db"))``.

    Every method has an async twin with a leading ``a``; both may be used on one object, from any thread and any event
    loop. What coroutines ask in one turn of their loop is read, and written, in one batch.

    A batch reads everything before it writes anything; of several puts of one item the last counts. All values are
    checked and encoded before anything is stored: a value is a mapping of JSON, and comes back equal. A file, memory
    and a SQL database store all puts of a batch or none. A namespace and a key together, encoded, take at most what a
    key takes on the target, mostly 8,000 bytes.

    An item that is put again keeps its ``created_at``, whoever writes at the same time; only in a place of others that
    cannot update may two writers at once change it.

    A search answers the items that were updated last first, then by namespace and key. Paging by ``offset``, by more
    than 20 items a page, goes on in the list that the first page was cut from, for a minute: an item that is updated
    between two pages is neither lost nor seen twice, a new one is not on them, and one that was removed is left out. A
    search from the beginning always looks anew. It looks at the whole namespace, on a file and in a SQL database
    without fetching it, and elsewhere, or with a filter or a query, reading it: more than a hundred thousand items are
    better divided. Over HTTP a short search with a query reads what is nearest only.

    Items expire ``ttl`` minutes after they were put, or read, and are not served from then on. Moments are those of
    the reading machine's clock.

    Attributes:
        index_config: the ``index`` that it was made with.
        embeddings: the model of it.
        ttl_config: its ``ttl``.

    Example:
        >>> store = LangGraphStore("memory:")
        >>> store.put(("users", "u1"), "food", {"likes": "pizza"})
        >>> store.get(("users", "u1"), "food").value
        {'likes': 'pizza'}
        >>> [item.key for item in store.search(("users",), filter={"likes": "pizza"})]
        ['food']
    """

    supports_ttl = True

    def __init__(
        self,
        url: str | Place | None = None,
        *,
        collection: str = "langgraph_store",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        token: Token | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        setup_mode: AnySetupMode = SetupMode.SYNC,
        pre_delete_collection: bool = False,
        ext_callers: Sequence[Caller] | None = None,
        api_options: object = None,
        request_timeout_s: float | None = None,
        deadline_s: float | None = None,
        wake_timeout_s: float | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        """Open a store on a collection of its own. Arguments not named here are as ``KVStore`` has them.

        Over HTTP the collection is made with ``{"allow": ["_id", "ns", "version"]}`` as its indexing (``namespaced``
        and ``atomic`` of ``KVStore``) and, with ``index``, with vectors.

        Args:
            url: where the items live, a URL or a ``Place``; None takes ``LCKV_URL`` of the environment, then
                ``ASTRA_DB_API_ENDPOINT``.
            collection: the collection's name.
            index: LangGraph's ``IndexConfig``: ``search(query=...)`` finds items by their meaning. ``embed`` may be an
                ``EmbeddingCache``, which asks the model once a text. Needs numpy: the extra ``vector``. The vectors,
                float32, are kept within the items, and compared one by one: all in the namespace that is searched. Over
                HTTP the service compares, by vectors of ``dims`` that the collection is made with.
            ttl: LangGraph's ``TTLConfig``: ``default_ttl`` in minutes, whether ``refresh_on_read`` (so if not said) and
                ``sweep_interval_minutes``. What has expired is never served, whatever ``omit_expired`` says.
            token: the service's token; None takes it from the environment.
            keyspace: the keyspace; None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
            environment: which service it is; only Astra DB behind a domain of your own needs it.
            setup_mode: when the collection is made.
            pre_delete_collection: drop the collection, and all in it, before it is made.
            ext_callers: names that go first in the User-Agent.
            api_options: an astrapy ``APIOptions``.
            request_timeout_s: seconds for one request.
            deadline_s: seconds that an operation goes on trying without any success.
            wake_timeout_s: seconds that a hibernated Astra database is waited for.
            encryption: the keys that items are encrypted with, not their namespaces, keys and moments of expiry.

        Raises:
            ConfigError: an argument is wrong, or numpy is missing (a ValueError).
            CollectionConflictError: the collection exists with other settings.
        """
        self._index: Index | None = None if index is None else Index(index)
        self.index_config: IndexConfig | None = None if index is None else cast("IndexConfig", dict(index))
        self.embeddings = None if self._index is None else self._index.embeddings
        self.ttl_config = _checked_ttl(ttl)
        self._records = Records(
            collection,
            url,
            token=token,
            keyspace=keyspace,
            environment=environment,
            setup_mode=setup_mode,
            pre_delete_collection=pre_delete_collection,
            ext_callers=ext_callers,
            api_options=api_options,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s,
            encryption=encryption,
            dimension=0 if self._index is None or encryption is not None else self._index.dimension,
            namespaced=True,
            atomic=True,
        )
        self._start()

    def _start(self) -> None:
        self._access = Access(self._records)
        self._pages = Pages()
        self._sweeper: Sweeper | None = None

    def __repr__(self) -> str:
        records = self.__dict__.get("_records")  # None in the traceback of a constructor that failed
        return f"LangGraphStore over {records!r}"

    # -- LangGraph's interface --------------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations: all reads, then all writes.

        Returns:
            The answer of each operation, in order.

        Raises:
            langgraph.store.base.InvalidNamespaceError: a label is none.
            UsageError: an operation is wrong, its value is not JSON, or its key too long; nothing was done.
            DamagedValueError: items that were asked for cannot be read.
            PartialWriteError: over HTTP and on Cassandra, Redis and MongoDB: some items were written and some were not.
            BadVectorError: the model of ``index`` answered no vectors; nothing was written.
        """
        batch = _Batch(ops, self._index)
        try:
            return run(self._carried_out(batch))
        except StoreError as error:
            name_items(error, batch.keys)
            raise

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As ``batch``."""
        batch = _Batch(ops, self._index)
        try:
            return await arun(self._carried_out(batch))
        except StoreError as error:
            name_items(error, batch.keys)
            raise

    # -- beyond it --------------------------------------------------------------------------------------------------

    def sweep_ttl(self) -> int:
        """Remove for good what has expired; return how many items that were."""
        return self._records.purge()

    async def asweep_ttl(self) -> int:
        """As ``sweep_ttl``."""
        return await self._records.apurge()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Have a thread call ``sweep_ttl`` from time to time; without it, writes remove a little of what has expired.

        Args:
            sweep_interval_minutes: minutes between two times; None takes that of ``ttl``, or 5.

        Returns:
            A future that is done when the thread has ended; cancelling it ends the thread, as does ``close``.
        """
        minutes = sweep_interval_minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or SWEEP_MINUTES
        if self._sweeper is None or not self._sweeper.is_running:
            interval_s = seconds("sweep_interval_minutes, times 60,", minutes * 60) or SWEEP_MINUTES * 60
            self._sweeper = Sweeper(self.sweep_ttl, interval_s)
        return self._sweeper.future

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """End that thread.

        Args:
            timeout: seconds to wait for it; None waits for its end.

        Returns:
            Whether there is none any more.
        """
        return self._sweeper is None or self._sweeper.stop(timeout)

    def close(self) -> None:
        """Release what only this store uses. Idempotent; a later use raises StoreClosedError."""
        if self._sweeper is not None:
            self._sweeper.stop(0)
        self._records.close()

    async def aclose(self) -> None:
        """As ``close``."""
        if self._sweeper is not None:
            self._sweeper.stop(0)
        await self._records.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._records.abegin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_access", "_pages", "_sweeper")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _carried_out(self, batch: _Batch) -> Plan[list[Result]]:
        self._records.check_keys(batch.keys)
        records: list[Record] = []
        if batch.puts:
            records = yield from _in_pauses(encode(batch.stored))
            if self._index is not None:
                records = yield from self._with_vectors(self._index, batch, records)
        yield self._access.begin
        due: dict[int, list[str]] = {}
        if batch.gets:
            yield from self._get(batch, due)
        if batch.searches:
            yield from self._search(batch, due)
        for at, listing in batch.listings:
            batch.results[at] = yield from list_namespaces(listing, self._access)
        if due:
            yield self._access.touch(due)
        if batch.puts:
            yield self._access.write(Writes(records, [key for key, put in batch.puts.items() if put.value is None]))
        return batch.results

    def _with_vectors(self, index: Index, batch: _Batch, records: list[Record]) -> Plan[list[Record]]:
        texts = {key: index.texts_of(put) for key, put in batch.stored.items()}
        vectors = yield from index.vectors_of(text for some in texts.values() for text in some)
        return [
            with_vectors(record, [vectors[text] for text in texts[record.key]]) if texts[record.key] else record
            for record in records
        ]

    def _get(self, batch: _Batch, due: dict[int, list[str]]) -> Plan[None]:
        asked = [key for _, key, _ in batch.gets]
        keys = list(dict.fromkeys(asked))
        found: Sequence[Stored | bytes | None] = yield self._access.get(keys)
        if len(keys) < len(asked):
            by_key = dict(zip(keys, found, strict=True))
            found = [by_key[key] for key in asked]
        damaged: dict[str, str] = {}
        results = batch.results
        for (at, key, op), stored in zip(batch.gets, found, strict=True):
            if stored is None:
                continue
            try:
                results[at] = item_of(op, stored)
            except (AttributeError, TypeError, ValueError, LookupError):
                damaged[key] = damage_of(stored) or "it is damaged"
                continue
            if isinstance(stored, Found) and stored.expires_at_ms is not None and op.refresh_ttl:
                _note_due(due, key, stored)
        if damaged:
            raise_damaged(damaged, {})

    def _search(self, batch: _Batch, due: dict[int, list[str]]) -> Plan[None]:
        scorers = {}
        if self._index is not None:
            texts = [question.text for _, question in batch.searches if question.text is not None and question.limit]
            scorers = yield from self._index.scorers_of(texts)
        for at, question in batch.searches:
            scorer = scorers.get(question.text) if question.text is not None else None
            answer = yield from search(question, self._access, self._pages, scorer)
            batch.results[at] = answer.items
            if question.refresh:
                for key, stored in answer.expiring:
                    _note_due(due, key, stored)


class _Batch:
    """The operations of one call, checked.

    Attributes:
        results: the answer of each, None to begin with.
        gets: those that read one item, with their places and the keys of their records.
        puts: what is to be stored or removed, by the keys of the records.
        stored: those of them that are to be stored.
        searches: the questions, with their places.
        listings: the same, of namespaces.
        keys: those of the records that are named.
    """

    def __init__(self, ops: Iterable[Op], index: Index | None) -> None:
        self.results: list[Result] = []
        self.gets: list[tuple[int, str, GetOp]] = []
        self.puts: dict[str, PutOp] = {}
        self.searches: list[tuple[int, Question]] = []
        self.listings: list[tuple[int, Listing]] = []
        listed = list(ops)
        for at, op in enumerate(listed):
            if isinstance(op, PutOp):
                self.puts[key_of(op)] = checked_put(op)
            elif isinstance(op, GetOp):
                self.gets.append((at, key_of(op), op))
            elif isinstance(op, SearchOp):
                self.searches.append((at, Question(op, by_meaning=index is not None)))
            elif isinstance(op, ListNamespacesOp):
                self.listings.append((at, Listing(op)))
            else:
                raise UsageError(f"Unknown operation: got {type_name(op)}, give GetOp, PutOp, SearchOp and the like.")
        self.results = [None] * len(listed)
        self.stored = {key: put for key, put in self.puts.items() if put.value is not None}
        self.keys = [*[key for _, key, _ in self.gets], *self.puts]


def _note_due(due: dict[int, list[str]], key: str, stored: Found) -> None:
    """Note until when an item that was read lives on, if that is worth a write."""
    ttl_s = ttl_s_of(stored)
    moment = moment_after(ttl_s)
    if ttl_s is not None and moment is not None and refresh_due(stored.expires_at_ms, moment, ttl_s):
        due.setdefault(moment, []).append(key)


def _in_pauses(steps: Steps[list[Record]]) -> Plan[list[Record]]:
    """Do work in slices within a plan."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            records: list[Record] = end.value
            return records
        yield PAUSE


def _checked_ttl(config: Any) -> TTLConfig | None:
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise ConfigError(f'ttl must be a mapping, got {type_name(config)}: give {{"default_ttl": 60}}, in minutes.')
    for name in ("default_ttl", "sweep_interval_minutes"):
        seconds(f"{name} of ttl, in minutes,", config.get(name))
    return cast("TTLConfig", dict(config))

"""The backend for Astra DB and any other Data API: native coroutines, with plain calls by the loop thread."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, TypeVar

from langchain_kv import limits
from langchain_kv._version import __version__
from langchain_kv.backends.base import Change, Nearest, Page, Record, Skimmed, Stored, unsupported
from langchain_kv.backends.collections import PLAIN, CollectionForm, check_settings
from langchain_kv.backends.dataapi.adding import add
from langchain_kv.backends.dataapi.flow import each
from langchain_kv.backends.dataapi.nearest import compared, listed_apart
from langchain_kv.backends.dataapi.retry import TokenSource
from langchain_kv.backends.dataapi.service import HTTPBackend, checked_headers
from langchain_kv.backends.dataapi.updating import touch, update
from langchain_kv.backends.dataapi.verbs import Verbs
from langchain_kv.backends.documents import encoded_in_parts
from langchain_kv.backends.own_vectors import spelled_for_service
from langchain_kv.engines.base import Held
from langchain_kv.errors import DataAPIError, PartialWriteError, StoreError
from langchain_kv.runtime import loop_thread
from langchain_kv.runtime.slices import in_slices
from langchain_kv.values.namespaces import is_in_tree

__all__ = ["DataAPIBackend"]

T = TypeVar("T")


class DataAPIBackend(HTTPBackend):
    """A collection behind the Data API's HTTP interface.

    Constructing one sends nothing. Backends of the same endpoint and TLS settings share their connections. Every
    verb repeats, until the deadline, what failed in passing (connections, timeouts, 429, 5xx, faults of the service).

    Every operation raises ConnectError, RequestTimeoutError, BadReplyError or TransportError where no usable answer
    comes until the deadline, AuthError, UnknownCollectionError, UnknownKeyspaceError or another DataAPIError where the
    service refuses, and StoreClosedError after ``close``.

    Args:
        endpoint: ``https://HOST`` or ``http://HOST:PORT``.
        collection: its name; need not exist before ``open``.
        keyspace: its name; must exist.
        token: the token, or a function that returns it, called in a thread (with the caller's context variables) once
            an operation, and once more after the service refused what it returned.
        path_prefix: goes before ``/v1``; Astra's is ``/api/json``.
        user_agent: the header of that name.
        headers: sent with every request; treated as secret.
        ca_file: a PEM file of the authorities to trust, in place of the system's.
        request_timeout_s: seconds for one request, answer included.
        deadline_s: seconds that an operation goes on trying without any success.
        wake_timeout_s: seconds that a hibernated database is waited for, in place of ``deadline_s``, with one log line.
        is_astra: whether HTTP 503 means a hibernated database.
        form: what the collection's documents have beside key and value.
    """

    keeps_bytes = False

    def __init__(
        self,
        endpoint: str,
        *,
        collection: str,
        keyspace: str,
        token: TokenSource,
        path_prefix: str = "",
        user_agent: str = f"langchain-kv/{__version__}",
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        request_timeout_s: float = limits.REQUEST_TIMEOUT_S,
        deadline_s: float = limits.DEADLINE_S,
        wake_timeout_s: float = limits.WAKE_TIMEOUT_S,
        is_astra: bool = False,
        form: CollectionForm = PLAIN,
    ) -> None:
        super().__init__(
            endpoint,
            shown=f"collection {collection!r}",
            token=token,
            ca_file=ca_file,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s if is_astra else None,
        )
        self._has_seen_form = False
        self._keyspace = keyspace
        self._collection = collection
        sent = {
            **checked_headers(headers or {}),
            "User-Agent": user_agent,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        self._verbs = Verbs(self._current_pool, self._endpoint + path_prefix, keyspace, collection, sent, form=form)

    def __repr__(self) -> str:
        return f"DataAPIBackend({self._endpoint!r}, collection={self._collection!r}, keyspace={self._keyspace!r})"

    # -- the verbs ------------------------------------------------------------------------------------------------

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await self._do(lambda call: self._verbs.get(call, keys)) if keys else self._empty()

    async def aput_many(self, records: Sequence[Record]) -> None:
        if not records:
            self._empty()
            return

        async def put(form: CollectionForm) -> None:
            documents = await in_slices(encoded_in_parts(records, form))
            await self._do(lambda call: self._verbs.put(call, documents), writes=True)

        await self._in_form(put)

    def check_many(self, records: Sequence[Record]) -> None:
        deque(encoded_in_parts(records, self._verbs.form), maxlen=0)

    def check_writable(self) -> None:
        self.collections()  # which refuses a keyspace that is not there: a collection can be made, but not that

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._do(lambda call: self._verbs.delete(call, keys), writes=True) if keys else self._empty()

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        call = await self._begin(writes=False)
        async with aclosing(self._verbs.pages(call, prefix, values=values)) as pages:
            async for page in pages:
                yield page

    async def ascan_tree(self, tree: str, *, values: bool, holding: Held | None = None) -> AsyncGenerator[Skimmed]:
        call = await self._begin(writes=False)
        async with aclosing(self._verbs.pages(call, tree, values=values, namespace=tree)) as pages:
            async for page in pages:
                yield [item for item in page if is_in_tree(item[0], tree)]

    def scan_tree(self, tree: str, *, values: bool, holding: Held | None = None) -> Generator[Skimmed]:
        return loop_thread.iterate(self.ascan_tree(tree, values=values))

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        if not records:
            return self._empty()

        async def add_all(form: CollectionForm) -> list[bool]:
            documents = await in_slices(encoded_in_parts(records, form))
            return await self._do(lambda call: add(self._verbs, call, documents), writes=True)

        return await self._in_form(add_all)

    @property
    def can_update(self) -> bool:  # type: ignore[override]
        return self._verbs.form.atomic

    async def aupdate(self, key: str, change: Change) -> None:
        if not self.can_update:
            raise unsupported(self, "update")
        await self._in_form(
            lambda form: self._do(lambda call: update(self._verbs, call, key, change, form), writes=True)
        )

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        if not self.can_update:
            raise unsupported(self, "refresh")
        await self._do(lambda call: touch(self._verbs, call, keys, expires_at_ms), writes=True)

    async def apurge(self) -> int:
        return await self._do(self._verbs.purge, writes=True)

    def nearest(self, tree: str, vector: bytes, limit: int) -> Nearest | None:
        return self._run(self.anearest(tree, vector, limit))

    async def anearest(self, tree: str, vector: bytes, limit: int) -> Nearest | None:
        async def find(form: CollectionForm) -> Nearest | None:
            spelled = spelled_for_service(vector) if len(vector) == 4 * form.dimension else None
            return None if spelled is None else await self._nearest(tree, spelled, limit)

        try:
            return await self._in_form(find)
        except DataAPIError as error:
            if _is_about_vectors(error):
                return None
            raise

    async def _nearest(self, tree: str, vector: bytes, limit: int) -> Nearest:
        found: list[tuple[Page, bool]] = []
        apart: list[Page] = []

        async def compare() -> None:
            found.append(await self._do(lambda call: compared(self._verbs, call, tree, vector, limit)))

        async def list_apart() -> None:
            apart.append(await self._do(lambda call: listed_apart(self._verbs, call, tree)))

        await each(lambda look: look(), [compare, list_apart], 2)
        return Nearest(*found[0], apart[0])

    async def _in_form(self, work: Callable[[CollectionForm], Awaitable[T]]) -> T:
        """Do what goes by the collection's form; with SetupMode.OFF nobody has seen yet whether it has vectors.

        It is looked up again after an error about vectors: another program has made the collection anew, with others.
        """
        if self._verbs.form.takes_vectors and not self._has_seen_form:
            self._has_seen_form = await self._do(self._verbs.learn)
        try:
            return await work(self._verbs.form)
        except StoreError as error:
            if _is_about_vectors(error):
                self._has_seen_form = False
            raise

    # -- life -------------------------------------------------------------------------------------------------------

    def open(self, *, clear: bool = False) -> None:
        self._check_settings(loop_thread.run(self._open(clear)))  # here: a warning shows the caller's line

    async def aopen(self, *, clear: bool = False) -> None:
        self._check_settings(await self._open(clear))

    def collections(self) -> list[str]:
        """Return the names of the keyspace's collections, sorted."""
        return loop_thread.run(self._do(self._verbs.collections))

    def drop(self) -> None:
        """Remove the collection, with all in it. A missing one is no error."""
        loop_thread.run(self._do(self._verbs.drop, writes=True))

    async def _open(self, clear: bool) -> Mapping[str, Any] | None:
        settings = await self._do(lambda call: self._verbs.open(call, pre_delete=clear), writes=True)
        self._has_seen_form = True
        self._new_until = monotonic() + limits.NEW_COLLECTION_S
        return settings

    def _check_settings(self, settings: Mapping[str, Any] | None) -> None:
        if settings is not None:
            check_settings(self._collection, settings, self._verbs.form)


def _is_about_vectors(error: StoreError) -> bool:
    causes = [error, *error.errors.values()] if isinstance(error, PartialWriteError) else [error]
    return any(isinstance(cause, DataAPIError) and "VECTOR" in cause.code for cause in causes)

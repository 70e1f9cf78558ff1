"""The store: LangChain's ``BaseStore`` over a Backend, written once for every target."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from itertools import repeat
from typing import Any, Final, Generic, Self, TypeVar

from langchain_core.stores import BaseStore

from langchain_kv.backends.base import Damaged, Stored
from langchain_kv.errors import ConfigError, InvalidValueError, StoreClosedError
from langchain_kv.places.opening import open_backend
from langchain_kv.places.targets import Caller, Settings, Token, resolve
from langchain_kv.stores.arguments import checked_keys, checked_pairs, checked_prefix
from langchain_kv.stores.collection import CollectionHandle
from langchain_kv.stores.damage import raise_damaged
from langchain_kv.stores.setup import AnySetupMode, Setup, SetupMode
from langchain_kv.values import codecs
from langchain_kv.values.records import Kind, Record
from langchain_kv.values.refusals import name_key, refuse_type
from langchain_kv.values.secret import hidden

__all__ = ["KVBaseStore", "KVByteStore", "KVStore"]

V = TypeVar("V")

RUN: Final = 100
"""Values that are encoded together: what is done in vain for one that is unusual, is done for so many."""


class KVBaseStore(BaseStore[str, V], Generic[V]):
    """What all stores share. A subclass says how a value becomes JSON and back; both may be overridden further.

    Every method has a twin with a leading ``a``; both colours may be used on one object, from any thread and any
    event loop.
    A store pickles without its token, and takes it from the environment where it is loaded.
    """

    _component = "langchain_store"

    def __init__(
        self,
        collection: str,
        url: str | None = None,
        *,
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
    ) -> None:
        """Open a store; in SetupMode.SYNC its collection is there on return.

        Every argument is checked on every target, also where the target has no use for it.

        Args:
            collection: the collection's name: 1 to 48 ASCII letters, digits and underscores.
            url: where values live: ``sqlite:PATH``, ``memory:``, ``memory:NAME``, ``https://...`` or ``http://...`` of
                a Data API, ``cassandra://...`` or ``cassandra+bundle:PATH``; None takes ``LCKV_URL`` of the
                environment, then ``ASTRA_DB_API_ENDPOINT``.
            token: the Data API's token, an object that has it (``get_token()``, or a ``SecretStr``) or a function that
                returns it; white space around it is taken off. None takes ``ASTRA_DB_APPLICATION_TOKEN``.
            keyspace: as ``collection``; None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
            environment: ``prod``, ``dev``, ``test`` (Astra DB), ``hcd``, ``dse``, ``cassandra`` or ``other``; None
                reads it off the URL. Only Astra DB behind a domain of your own needs it.
            setup_mode: when the collection is made: SYNC, ASYNC or OFF, as a member or as its name.
            pre_delete_collection: drop the collection, and all in it, before it is made.
            ext_callers: names, or (name, version) pairs, that go first in the User-Agent.
            api_options: an astrapy ``APIOptions``, read by its attributes; astrapy itself is never needed.
            request_timeout_s: seconds for one request, 30 if not given.
            deadline_s: seconds that an operation goes on trying without any success, 60 if not given.
            wake_timeout_s: seconds that a hibernated Astra database is waited for, in place of ``deadline_s``; 180 if
                not given.

        Raises:
            ConfigError: an argument is wrong (a ValueError); the text says which and what to give.
            CollectionConflictError: the collection exists with other settings (a ValueError and an AstraDBError).
        """
        token = hidden(token)
        settings = resolve(
            collection,
            url,
            token=token,
            keyspace=keyspace,
            environment=environment,
            ext_callers=ext_callers,
            component=self._component,
            api_options=api_options,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s,
        )
        self._start(settings, setup_mode, pre_delete=pre_delete_collection)

    def _start(self, settings: Settings, setup_mode: Any, *, pre_delete: bool) -> None:
        mode = SetupMode.of(setup_mode)
        if not isinstance(pre_delete, bool):  # "no" would delete everything
            raise ConfigError(f"pre_delete_collection must be True or False, got {pre_delete!r:.40}.")
        self._settings = settings
        self._open(mode, pre_delete=pre_delete)

    def _open(self, mode: SetupMode, *, pre_delete: bool = False) -> None:
        self._closed = False
        self._backend = open_backend(self._settings)
        try:
            self._setup = Setup(self._backend, mode, pre_delete=pre_delete)
        except BaseException:
            self._backend.close()
            raise

    # -- how values are kept ----------------------------------------------------------------------------------------

    @abstractmethod
    def encode_value(self, value: V | None) -> Any:
        """Return what keeps ``value``: a JSON value, or bytes."""

    @abstractmethod
    def decode_value(self, value: Any) -> V | None:
        """Return the value of which ``encode_value`` made this one. None stands for a missing value.

        Raises:
            UndecodableError: it is not what ``encode_value`` makes; the message says why, and is shown with the key.
        """

    def _encode(self, key: str, value: V, expires_at_ms: int | None = None) -> Record:
        try:
            encoded = self.encode_value(value)
            if type(encoded) is bytes:
                return Record(key, encoded, Kind.BYTES, expires_at_ms)
            if isinstance(encoded, bytes | bytearray | memoryview):
                return Record(key, codecs.exact_bytes(encoded, key), Kind.BYTES, expires_at_ms)
            return codecs.encode_json(key, encoded, expires_at_ms)
        except InvalidValueError as error:  # encode_value knows no key
            name_key(error, key)
            raise

    # -- LangChain's interface --------------------------------------------------------------------------------------

    def mget(self, keys: Sequence[str]) -> list[V | None]:
        """Return the value of each key, in the order of ``keys`` (repeats allowed), None where there is none.

        Raises:
            InvalidKeyError: a key is not a non-empty string of at most 8,000 bytes of UTF-8; nothing was sent.
            DamagedValueError: stored values cannot be read; it names their keys and carries the values of the others.
        """
        wanted = checked_keys(keys)
        self._begin()
        unique = list(dict.fromkeys(wanted))
        return self._decode_all(wanted, unique, self._backend.get_many(unique) if unique else [])

    async def amget(self, keys: Sequence[str]) -> list[V | None]:
        """As ``mget``."""
        wanted = checked_keys(keys)
        await self._abegin()
        unique = list(dict.fromkeys(wanted))
        return self._decode_all(wanted, unique, await self._backend.aget_many(unique) if unique else [])

    def mset(self, key_value_pairs: Sequence[tuple[str, V]]) -> None:
        """Store every pair; of a repeated key the last one wins. Everything is checked before anything is stored.

        Embedded targets store all pairs or none. Over HTTP a failure may leave a part stored: PartialWriteError says
        which.

        Raises:
            InvalidKeyError: see ``mget``.
            InvalidValueError: a value cannot be kept (InvalidValueTypeError, also a TypeError, for its type).
            PartialWriteError: some pairs were stored and some were not.
        """
        records = self._encode_all(key_value_pairs)
        self._begin()
        if records:
            self._backend.put_many(records)

    async def amset(self, key_value_pairs: Sequence[tuple[str, V]]) -> None:
        """As ``mset``."""
        records = self._encode_all(key_value_pairs)
        await self._abegin()
        if records:
            await self._backend.aput_many(records)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove the keys; missing ones are no error.

        Raises:
            InvalidKeyError: see ``mget``.
            PartialWriteError: some keys were removed and some were not.
        """
        unique = list(dict.fromkeys(checked_keys(keys)))
        self._begin()
        if unique:
            self._backend.delete_many(unique)

    async def amdelete(self, keys: Sequence[str]) -> None:
        """As ``mdelete``."""
        unique = list(dict.fromkeys(checked_keys(keys)))
        await self._abegin()
        if unique:
            await self._backend.adelete_many(unique)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield the keys that start with ``prefix`` (all without one), each once, in no promised order; no value is
        read.

        Keys that others write or remove meanwhile may or may not be seen.
        """
        self._begin()
        with closing(self._backend.scan(checked_prefix(prefix), values=False)) as pages:
            for page in pages:
                for key, _ in page:
                    yield key

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """As ``yield_keys``."""
        await self._abegin()
        async with aclosing(self._backend.ascan(checked_prefix(prefix), values=False)) as pages:
            async for page in pages:
                for key, _ in page:
                    yield key

    # -- beyond LangChain's interface ---------------------------------------------------------------------------------

    def yield_items(self, *, prefix: str | None = None) -> Iterator[tuple[str, V | None]]:
        """Yield (key, value) of the keys that start with ``prefix``, page by page.

        Raises:
            DamagedValueError: at the end, after every good item, where stored values could not be read; ``.values``
            is empty.
        """
        self._begin()
        damaged: dict[str, str] = {}
        with closing(self._backend.scan(checked_prefix(prefix), values=True)) as pages:
            for page in pages:
                for key, stored in page:
                    value = self._decode(key, stored, damaged)
                    if key not in damaged:
                        yield key, value
        raise_damaged(damaged, {})

    async def ayield_items(self, *, prefix: str | None = None) -> AsyncIterator[tuple[str, V | None]]:
        """As ``yield_items``."""
        await self._abegin()
        damaged: dict[str, str] = {}
        async with aclosing(self._backend.ascan(checked_prefix(prefix), values=True)) as pages:
            async for page in pages:
                for key, stored in page:
                    value = self._decode(key, stored, damaged)
                    if key not in damaged:
                        yield key, value
        raise_damaged(damaged, {})

    @property
    def collection(self) -> CollectionHandle:
        """The collection's names."""
        return CollectionHandle(self._settings.collection, self._settings.keyspace)

    @property
    def async_collection(self) -> CollectionHandle:
        """The collection's names."""
        return self.collection

    def close(self) -> None:
        """Release what only this store uses. Idempotent; a later use raises StoreClosedError."""
        self._closed = True
        self._backend.close()

    async def aclose(self) -> None:
        """As ``close``."""
        self._closed = True
        await self._backend.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._abegin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if "_settings" not in self.__dict__:  # in the traceback of a constructor that failed
            return f"<{type(self).__name__}, not made>"
        target = self._settings.target
        return f"{type(self).__name__}({self.collection.full_name!r}, {f'{target.kind}:{target.location}'!r})"

    # -- copies -------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_backend", "_setup")}
        state["_settings"] = self._settings.without_secrets()
        state["_mode"] = SetupMode.OFF if self._setup.done else SetupMode.ASYNC
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        mode = state.pop("_mode")
        self.__dict__.update(state)
        self._settings = self._settings.with_token_from_environment()
        self._reopen(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Unlike a pickle, a copy stays in this process, and so keeps the token.
        state = self.__getstate__()
        mode = state.pop("_mode")
        del state["_settings"]
        result = object.__new__(type(self))
        memo[id(self)] = result
        result.__dict__.update(copy.deepcopy(state, memo))
        result._settings = self._settings
        result._reopen(mode)
        return result

    def __copy__(self) -> Self:
        # A shallow copy would share, and close, the backend of its original.
        return copy.deepcopy(self)

    def _reopen(self, mode: SetupMode) -> None:
        closed = self._closed
        self._open(mode)
        if closed:
            self.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._closed:
            raise _closed_error()
        if not self._setup.done:
            self._setup.wait()

    async def _abegin(self) -> None:
        if self._closed:
            raise _closed_error()
        if not self._setup.done:
            await self._setup.await_()

    def _encode_all(self, pairs: Iterable[tuple[str, V]]) -> list[Record]:
        return self._encode_pairs(checked_pairs(pairs))

    def _encode_pairs(self, pairs: Mapping[str, V], expires_at_ms: int | None = None) -> list[Record]:
        if len(pairs) == 1:
            ((key, value),) = pairs.items()
            return [self._encode(key, value, expires_at_ms)]
        keys, records = list(pairs), list[Record]()
        for start in range(0, len(keys), RUN):
            run = keys[start : start + RUN]
            values = [pairs[key] for key in run]
            usual = self._encode_run(run, values, expires_at_ms)
            records += usual or list(map(self._encode, run, values, repeat(expires_at_ms)))
        return records

    def _encode_run(self, keys: list[str], values: list[V], expires_at_ms: int | None) -> list[Record] | None:
        """Return the records of usual values, encoded together; None where one is to be looked at by itself."""
        try:
            encoded = [self.encode_value(value) for value in values]
        except InvalidValueError:
            return None
        if set(map(type, encoded)) == {bytes}:
            return [Record(key, value, Kind.BYTES, expires_at_ms) for key, value in zip(keys, encoded, strict=True)]
        return codecs.encode_run(keys, encoded, expires_at_ms)

    def _decode_all(self, wanted: list[str], unique: list[str], stored: Sequence[Stored | None]) -> list[V | None]:
        damaged: dict[str, str] = {}
        values = list(map(self._decode, unique, stored, repeat(damaged)))
        if not damaged and len(unique) == len(wanted):
            return values
        by_key = dict(zip(unique, values, strict=True))
        if damaged:
            raise_damaged(damaged, {key: value for key, value in by_key.items() if key not in damaged})
        return [by_key[key] for key in wanted]

    def _decode(self, key: str, stored: Stored | None, damaged: dict[str, str]) -> V | None:
        if stored is None:
            return None
        if isinstance(stored, Damaged):
            damaged[key] = stored.reason
            return None
        try:
            return self.decode_value(stored.value)
        except codecs.UndecodableError as error:
            damaged[key] = str(error)
            return None


def _closed_error() -> StoreClosedError:
    return StoreClosedError("This store was closed: make a new one.")


class KVStore(KVBaseStore[Any]):
    """Keeps any JSON value by key.

    Values come back equal by ``==``; tuples as lists. None reads as missing, though its key is listed.

    Example:
        >>> store = KVStore("kv", "memory:")
        >>> store.mset([("a", {"n": 1}), ("b", [1, 2])])
        >>> store.mget(["a", "x"])
        [{'n': 1}, None]
    """

    def encode_value(self, value: Any) -> Any:
        """Return the value itself."""
        if isinstance(value, bytes | bytearray | memoryview):
            refuse_type("", value, ())
        return value

    def decode_value(self, value: Any) -> Any:
        """Return the value itself."""
        if isinstance(value, bytes):
            raise codecs.UndecodableError("it is bytes, not JSON: read it with KVByteStore or AstraDBByteStore")
        return value


class KVByteStore(KVBaseStore[bytes]):
    """Keeps bytes by key, at most just under 3,000,000 a value: over HTTP and on a cluster as base64 text.

    bytearray and memoryview are taken too and come back as bytes. None is stored, and reads as missing.

    Example:
        >>> with KVByteStore("blobs", "memory:") as store:
        ...     store.mset([("a", b"1")])
        ...     store.mget(["a", "x"])
        [b'1', None]
    """

    _component = "langchain_bytestore"

    def encode_value(self, value: bytes | None) -> Any:
        """Return the bytes, as an exact ``bytes``; None stays None."""
        # The bytes that may be a Document that nobody could load again are looked at more closely.
        usual = value is None or (type(value) is bytes and value[:2] != b'{"')
        return value if usual else codecs.exact_bytes(value)

    def decode_value(self, value: Any) -> bytes | None:
        """Return the bytes, which may be there as base64 text; None stays None."""
        return value if isinstance(value, bytes) else codecs.bytes_from_text(value)

"""The store: LangChain's ``BaseStore`` over a Backend, written once for every target."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from langchain_core.stores import BaseStore

from langchain_kv import codecs
from langchain_kv.backends.opening import open_backend
from langchain_kv.errors import ConfigError, InvalidValueError, StoreClosedError
from langchain_kv.keys import shown
from langchain_kv.secret import hidden
from langchain_kv.slices import Steps, in_slices, is_short, whole
from langchain_kv.stores import arguments, batches
from langchain_kv.stores.arguments import checked_keys, checked_pairs, checked_prefix
from langchain_kv.stores.collection import CollectionHandle
from langchain_kv.stores.damage import raise_damaged
from langchain_kv.stores.setup import AnySetupMode, Setup, SetupMode
from langchain_kv.targets import Caller, Settings, Token, resolve

if TYPE_CHECKING:
    from langchain_kv.backends.base import Record

__all__ = ["KVBaseStore", "KVByteStore", "KVStore"]

V = TypeVar("V")


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
            deadline_s: seconds that an operation goes on trying without any success or, on a file, waits for others; 60
                if not given.
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
        """Return the JSON value that keeps ``value``."""

    @abstractmethod
    def decode_value(self, value: Any) -> V | None:
        """Return the value that ``encode_value`` made this JSON value of. None stands for a missing value."""

    def _encode(self, key: str, value: V) -> bytes:
        try:
            return codecs.encode_document(key, self.encode_value(value))
        except InvalidValueError as error:  # encode_value knows no key
            if shown(key) not in str(error):
                error.args = (f"Key {shown(key)}: {error}",)
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
        stored = self._backend.get_many(unique) if unique else []
        return batches.decode_all(wanted, unique, stored, self._decode, self._decode_together())

    async def amget(self, keys: Sequence[str]) -> list[V | None]:
        """As ``mget``."""
        wanted = checked_keys(keys) if is_short(keys) else await arguments.achecked_keys(keys)
        await self._abegin()
        unique = list(dict.fromkeys(wanted)) if is_short(wanted) else await arguments.unique_keys(wanted)
        stored = await self._backend.aget_many(unique) if unique else []
        return await batches.adecode_all(wanted, unique, stored, self._decode, self._decode_together())

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
        short = is_short(key_value_pairs)
        pairs = checked_pairs(key_value_pairs) if short else await arguments.achecked_pairs(key_value_pairs)
        records = await in_slices(self._encode_pairs(pairs))
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
        checked = checked_keys(keys) if is_short(keys) else await arguments.achecked_keys(keys)
        unique = list(dict.fromkeys(checked)) if is_short(checked) else await arguments.unique_keys(checked)
        await self._abegin()
        if unique:
            await self._backend.adelete_many(unique)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield the keys that start with ``prefix`` (all without one), each once, in no promised order; no value is
        read.

        Keys that others write or remove meanwhile may or may not be seen.
        """
        self._begin()
        for page in self._backend.scan_keys(checked_prefix(prefix)):
            yield from page

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """As ``yield_keys``."""
        await self._abegin()
        async with aclosing(self._backend.ascan_keys(checked_prefix(prefix))) as pages:
            async for page in pages:
                for key in page:
                    yield key

    # -- beyond LangChain's interface ---------------------------------------------------------------------------------

    def yield_items(self, *, prefix: str | None = None) -> Iterator[tuple[str, V | None]]:
        """Yield (key, value) of the keys that start with ``prefix``, page by page; memory is bounded by a page or two.

        Each page is read when it is wanted: keys that others write or remove meanwhile may or may not be seen.

        Raises:
            DamagedValueError: at the end, after every good item, where stored values could not be read; ``.values``
            is empty.
        """
        self._begin()
        damaged: dict[str, str] = {}
        for page in self._backend.scan_items(checked_prefix(prefix)):
            for key, stored in page:
                value = self._decode(key, stored, damaged)
                if key not in damaged:
                    yield key, value
        raise_damaged(damaged, {})

    async def ayield_items(self, *, prefix: str | None = None) -> AsyncIterator[tuple[str, V | None]]:
        """As ``yield_items``."""
        await self._abegin()
        damaged: dict[str, str] = {}
        async with aclosing(self._backend.ascan_items(checked_prefix(prefix))) as pages:
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
        checked = checked_pairs(pairs)
        if len(checked) == 1:
            ((key, value),) = checked.items()
            return [(key, self._encode(key, value))]
        return whole(self._encode_pairs(checked))

    def _encode_pairs(self, pairs: Mapping[str, V]) -> Steps[list[Record]]:
        return batches.encode_each(pairs, self._encode)

    def _decode_together(self) -> batches.Together | None:
        """Return what decodes the usual values of a batch together; None where each is decoded by itself."""
        return None

    def _decode(self, key: str, stored: codecs.Stored | None, damaged: dict[str, str]) -> V | None:
        if stored is None:
            return None
        if isinstance(stored, codecs.Damaged):
            damaged[key] = stored.reason
            return None
        try:
            return self.decode_value(codecs.stored_value(stored))
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
        return value

    def decode_value(self, value: Any) -> Any:
        """Return the value itself."""
        return value

    def _encode(self, key: str, value: Any) -> bytes:
        if type(self).encode_value is KVStore.encode_value:
            return codecs.encode_document(key, value)
        return super()._encode(key, value)

    def _encode_pairs(self, pairs: Mapping[str, Any]) -> Steps[list[Record]]:
        kind = type(self)
        is_usual = kind.encode_value is KVStore.encode_value and kind._encode is KVStore._encode
        return codecs.encode_documents(pairs) if is_usual else super()._encode_pairs(pairs)

    def _decode_together(self) -> batches.Together | None:
        kind = type(self)
        is_usual = kind.decode_value is KVStore.decode_value and kind._decode is KVStore._decode
        return batches.usual_values if is_usual else None


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

    def encode_value(self, value: bytes | None) -> str | None:
        """Return the base64 text of the bytes; None stays None."""
        return codecs.bytes_to_text(value)

    def decode_value(self, value: Any) -> bytes | None:
        """Return the bytes of base64 text; None stays None."""
        return codecs.bytes_from_text(value)

    def _encode(self, key: str, value: bytes) -> bytes:
        # Neither bytes nor base64 need a JSON writer, unless a subclass has a codec of its own.
        if type(self).encode_value is not KVByteStore.encode_value:
            return super()._encode(key, value)
        keep = codecs.encode_kept_bytes if self._backend.keeps_bytes else codecs.encode_bytes_document
        return keep(key, value)

    def _decode(self, key: str, stored: codecs.Stored | None, damaged: dict[str, str]) -> bytes | None:
        if type(stored) is bytes and type(self).decode_value is KVByteStore.decode_value:
            return stored
        return super()._decode(key, stored, damaged)

    def _decode_together(self) -> batches.Together | None:
        kind = type(self)
        is_usual = kind.decode_value is KVByteStore.decode_value and kind._decode is KVByteStore._decode
        return batches.usual_bytes if is_usual else None

"""The store: LangChain's ``BaseStore`` over a Backend, written once for every target."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from langchain_core.stores import BaseStore

from langchain_kv.places.arguments import Caller, Token, place_of, resolve
from langchain_kv.runtime.slices import Steps, in_slices, is_short, whole
from langchain_kv.stores import arguments
from langchain_kv.stores.arguments import checked_keys, checked_pairs
from langchain_kv.stores.coding import decode_all, decode_one, encode, plain_values, usually
from langchain_kv.stores.expiry import refreshing
from langchain_kv.stores.extended import ExtendedStore
from langchain_kv.stores.life import Options
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values import codecs
from langchain_kv.values.records import Record
from langchain_kv.values.refusals import refuse_type
from langchain_kv.values.secret import masked

if TYPE_CHECKING:
    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.base import Place

__all__ = ["KVBaseStore", "KVByteStore", "KVStore"]

V = TypeVar("V")
W = TypeVar("W")

_BYTES = (bytes, bytearray, memoryview)
_BYTES_OR_NONE = {bytes, type(None)}


def _plain_bytes(values: Sequence[Any]) -> Steps[list[Any] | None]:
    """Return what ``KVByteStore.encode_value`` makes of usual bytes; None where one is not that."""
    yield from ()
    is_usual = set(map(type, values)) == {bytes} and b'{"' not in {value[:2] for value in values}
    return list(values) if is_usual else None


def _json_alone(values: list[Any]) -> list[Any] | None:
    return None if bytes in set(map(type, values)) else values


def _bytes_alone(values: list[Any]) -> list[Any] | None:
    return values if set(map(type, values)) <= _BYTES_OR_NONE else None


class KVBaseStore(ExtendedStore[V], BaseStore[str, V], Generic[V]):
    """What all stores share. A subclass says how a value becomes JSON and back; both may be overridden further.

    Every method has an async twin with a leading ``a``; both may be used on one object, from any thread and any event
    loop. A store pickles without its token, and takes it from the environment where it is loaded.
    """

    _component = "langchain_store"

    def __init__(
        self,
        collection: str,
        url: str | Place | None = None,
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
        ttl_s: float | None = None,
        refresh_on_read: bool = False,
        encryption: Encryption | None = None,
        statistics: bool = False,
        namespaced: bool = False,
        atomic: bool = False,
    ) -> None:
        """Open a store; in SetupMode.SYNC its collection is there on return.

        Every argument is checked on every target, also where the target has no use for it.

        Args:
            collection: the collection's name: 1 to 48 ASCII letters, digits and underscores.
            url: where values live: ``sqlite:PATH``, ``memory:``, ``memory:NAME``, ``https://...`` or ``http://...`` of
                a Data API, ``cassandra://...``, ``cassandra+bundle:PATH``, ``postgresql://...`` or that of another SQL
                database, ``redis://...``, ``rediss://...``, ``valkey://...``, ``mongodb://...``, ``upstash+https://...``,
                or a ``Place``; None takes ``LCKV_URL`` of the environment, then ``ASTRA_DB_API_ENDPOINT``.
            token: the service's token, an object that has it (``get_token()``, or a ``SecretStr``) or a function that
                returns it; white space around it is taken off. None takes ``ASTRA_DB_APPLICATION_TOKEN`` for a Data
                API, ``UPSTASH_REDIS_REST_TOKEN`` for Upstash.
            keyspace: as ``collection``; None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
            environment: ``prod``, ``dev``, ``test`` (Astra DB), ``hcd``, ``dse``, ``cassandra`` or ``other``; None
                reads it off the URL. Only Astra DB behind a domain of your own needs it.
            setup_mode: when the collection is made: SYNC, ASYNC or OFF, as a member or as its name.
            pre_delete_collection: drop the collection, and all in it, before it is made.
            ext_callers: names, or (name, version) pairs, that go first in the User-Agent.
            api_options: an astrapy ``APIOptions``, read by its attributes; astrapy itself is never needed.
            request_timeout_s: seconds for one request, 30 if not given.
            deadline_s: seconds, else 60, that an operation goes on without any success or, on a file, waits for others.
            wake_timeout_s: seconds, else 180, that a hibernated Astra database is waited for.
            ttl_s: seconds after which what is written expires, unless the call says otherwise; None for ever.
            refresh_on_read: whether ``mget`` starts the ``ttl_s`` of what expires anew; over HTTP with ``atomic`` only.
            encryption: the keys that encrypt values (not their keys, nor moments of expiry); nothing else is read then.
            statistics: whether ``statistics()`` counts, which takes some microseconds a call.
            namespaced: by HTTP and CQL, whether the collection is made so that a namespace is listed without others.
            atomic: by HTTP, whether the collection is made so that ``update`` works, as it does elsewhere; also by CQL.

        Raises:
            ConfigError: an argument is wrong (a ValueError); the text says which and what to give.
            CollectionConflictError: the collection exists with other settings (a ValueError and an AstraDBError).
        """
        token = masked(token)
        place = place_of(url)
        backend_options = resolve(
            collection,
            place,
            token=token,
            keyspace=keyspace,
            environment=environment,
            ext_callers=ext_callers,
            component=self._component,
            api_options=api_options,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s,
            namespaced=namespaced,
            atomic=atomic,
        )
        options = Options(ttl_s, refresh_on_read, encryption, statistics)
        self._start(place, backend_options, options, setup_mode, pre_delete=pre_delete_collection)

    # -- LangChain's interface --------------------------------------------------------------------------------------

    def mget(self, keys: Sequence[str]) -> list[V | None]:
        """Return the value of each key, in the order of ``keys`` (repeats allowed), None where there is none.

        Raises:
            InvalidKeyError: a key is not a non-empty string of at most 8,000 bytes of UTF-8; nothing was sent.
            DamagedValueError: stored values cannot be read; it names their keys and carries the values of the others.
        """
        return self._get(keys, self.decode_value)

    async def amget(self, keys: Sequence[str]) -> list[V | None]:
        """As ``mget``."""
        return await self._aget(keys, self.decode_value)

    def mset(self, key_value_pairs: Sequence[tuple[str, V]], *, ttl_s: float | None = None) -> None:
        """Store every pair; of a repeated key the last one wins. Everything is checked before anything is stored.

        A file and memory store all pairs or none. Over HTTP and on Apache Cassandra a failure may leave a part stored:
        PartialWriteError says which.

        Args:
            key_value_pairs: the pairs.
            ttl_s: seconds from now after which they expire: they are no longer served, nor listed. Not given, the
                store's own; ``math.inf`` for ever.

        Raises:
            InvalidKeyError: see ``mget``.
            InvalidValueError: a value cannot be kept (InvalidValueTypeError, also a TypeError, for its type).
            PartialWriteError: some pairs were stored and some were not.
        """
        records = self._encode_all(key_value_pairs, ttl_s)
        self._begin()
        if records:
            self._backend.put_many(records)

    async def amset(self, key_value_pairs: Sequence[tuple[str, V]], *, ttl_s: float | None = None) -> None:
        """As ``mset``."""
        moment = self._moment(ttl_s)
        if is_short(key_value_pairs):
            pairs = checked_pairs(key_value_pairs, self._key_rule)
        else:
            pairs = await arguments.achecked_pairs(key_value_pairs, self._key_rule)
        records = await in_slices(self._records(pairs, moment))
        await self._abegin()
        if records:
            await self._backend.aput_many(records)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove the keys; missing ones are no error.

        Raises:
            InvalidKeyError: see ``mget``.
            PartialWriteError: some keys were removed and some were not.
        """
        unique = list(dict.fromkeys(checked_keys(keys, self._key_rule)))
        self._begin()
        if unique:
            self._backend.delete_many(unique)

    async def amdelete(self, keys: Sequence[str]) -> None:
        """As ``mdelete``."""
        short, rule = is_short(keys), self._key_rule
        checked = checked_keys(keys, rule) if short else await arguments.achecked_keys(keys, rule)
        unique = list(dict.fromkeys(checked)) if short else await arguments.unique_keys(checked)
        await self._abegin()
        if unique:
            await self._backend.adelete_many(unique)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield the keys that start with ``prefix`` (all without one), each once, in no promised order.

        No value is read. Keys that others write or remove meanwhile may or may not be seen.
        """
        self._begin()
        with closing(self._backend.scan_keys(self._checked_prefix(prefix))) as pages:
            for page in pages:
                yield from page

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """As ``yield_keys``."""
        await self._abegin()
        async with aclosing(self._backend.ascan_keys(self._checked_prefix(prefix))) as pages:
            async for page in pages:
                for key in page:
                    yield key

    # -- inside -------------------------------------------------------------------------------------------------------

    def _get(self, keys: Sequence[str], decode_value: Callable[[Any], W | None]) -> list[W | None]:
        wanted = checked_keys(keys, self._key_rule)
        self._begin()
        unique = wanted if len(wanted) == 1 else list(dict.fromkeys(wanted))
        stored = self._backend.get_many(unique) if unique else []
        if self._options.refresh_on_read:
            due, moment = self._refreshed(unique, stored)
            if due:
                with refreshing():
                    self._backend.touch_many(due, moment)
        if len(wanted) == 1:
            return [decode_one(decode_value, wanted[0], stored[0])]
        return whole(decode_all(decode_value, wanted, unique, stored))

    async def _aget(self, keys: Sequence[str], decode_value: Callable[[Any], W | None]) -> list[W | None]:
        short, rule = is_short(keys), self._key_rule
        wanted = checked_keys(keys, rule) if short else await arguments.achecked_keys(keys, rule)
        await self._abegin()
        if len(wanted) == 1:
            unique = wanted
        else:
            unique = list(dict.fromkeys(wanted)) if short else await arguments.unique_keys(wanted)
        stored = await self._backend.aget_many(unique) if unique else []
        if self._options.refresh_on_read:
            due, moment = self._refreshed(unique, stored)
            if due:
                with refreshing():
                    await self._backend.atouch_many(due, moment)
        if len(wanted) == 1:
            return [decode_one(decode_value, wanted[0], stored[0])]
        return await in_slices(decode_all(decode_value, wanted, unique, stored))

    def _encode_all(self, pairs: Iterable[tuple[str, V]], ttl_s: float | None) -> list[Record]:
        moment = self._moment(ttl_s)
        checked = checked_pairs(pairs, self._key_rule)
        if len(checked) == 1:
            ((key, value),) = checked.items()
            return [encode(self.encode_value, key, value, moment)]
        return whole(self._records(checked, moment))


class KVStore(KVBaseStore[Any]):
    """Keeps any JSON value by key.

    Values come back equal by ``==``; tuples as lists. None reads as missing, though its key is listed.

    Example:
        >>> store = KVStore("kv", "memory:")
        >>> store.mset([("a", {"n": 1}), ("b", [1, 2])])
        >>> store.mget(["a", "x"])
        [{'n': 1}, None]
    """

    @usually(plain_values)
    def encode_value(self, value: Any) -> Any:
        """Return the value itself."""
        if isinstance(value, _BYTES):
            refuse_type("", value, ())
        return value

    @usually(_json_alone)
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

    @usually(_plain_bytes)
    def encode_value(self, value: bytes | None) -> Any:
        """Return the bytes, as an exact ``bytes``; None stays None."""
        # The bytes that may be a Document that nobody could load again are looked at more closely.
        usual = value is None or (type(value) is bytes and value[:2] != b'{"')
        return value if usual else codecs.exact_bytes(value)

    @usually(_bytes_alone)
    def decode_value(self, value: Any) -> bytes | None:
        """Return the bytes, which may be there as base64 text; None stays None."""
        return value if isinstance(value, bytes) else codecs.bytes_from_text(value)

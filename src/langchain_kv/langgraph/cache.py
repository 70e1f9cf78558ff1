"""``LangGraphCache``: LangGraph's cache of what nodes and tasks returned, over a store of bytes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT

from langchain_kv.errors import DamagedValueError, InvalidValueError
from langchain_kv.limits import BYTES_VALUE_MAX
from langchain_kv.places.arguments import Token
from langchain_kv.runtime.slices import Steps, by_bytes, in_slices, whole
from langchain_kv.stores.base import KVByteStore
from langchain_kv.stores.expiry import checked_ttl
from langchain_kv.stores.kept_by import KeptByStore
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values.codecs import UndecodableError
from langchain_kv.values.keys import KeyRule, check_key, shown
from langchain_kv.values.namespaces import namespace_prefix
from langchain_kv.values.secret import masked

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.base import Place

__all__ = ["LangGraphCache"]

_NO_NAMESPACE: Final = "\x1e"
"""What keys of the empty namespace begin with: keys of the others begin with ``\\x1f``."""

_KEYS: Final = KeyRule(allows_empty=True)

_Expiring = dict[float | None, list[tuple[str, bytes]]]
"""Entries by the seconds that they live."""

_logger = logging.getLogger("langchain_kv")


class LangGraphCache(KeptByStore, BaseCache[ValueT]):
    """Keeps what nodes returned, on any target: ``compile(cache=LangGraphCache("node_cache", "sqlite:kv.db"))``.

    An entry that cannot be read, or not be kept, because it is too large or the serializer does not know it, is a miss
    and one warning in the log ``langchain_kv``: the node runs again. Pickles are neither written nor read, whatever
    the serializer. Every method has an async twin with a leading ``a``.

    Attributes:
        serde: what makes bytes of results, and results of bytes.

    Example:
        >>> cache = LangGraphCache("node_cache", "memory:")
        >>> key = (("graph", "node"), "a hash of the node's input")
        >>> cache.set({key: ({"answer": 42}, 3600)})  # seconds; None: it never expires
        >>> cache.get([key])[key]
        {'answer': 42}
    """

    def __init__(
        self,
        collection: str,
        url: str | Place | None = None,
        *,
        serde: SerializerProtocol | None = None,
        token: Token | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        setup_mode: AnySetupMode = SetupMode.SYNC,
        pre_delete_collection: bool = False,
        api_options: object = None,
        request_timeout_s: float | None = None,
        deadline_s: float | None = None,
        wake_timeout_s: float | None = None,
        ttl_s: float | None = None,
        encryption: Encryption | None = None,
        statistics: bool = False,
        namespaced: bool = True,
    ) -> None:
        """Open a cache, on a collection of its own: ``clear()`` empties it. Most arguments are as ``KVStore`` has them.

        Args:
            collection: the collection's name.
            url: where the entries live; None takes ``LCKV_URL`` of the environment, then ``ASTRA_DB_API_ENDPOINT``.
            serde: a serializer of LangGraph's; None takes ``JsonPlusSerializer(pickle_fallback=False)``. As for a
                checkpointer, give it ``allowed_msgpack_modules``, or set ``LANGGRAPH_STRICT_MSGPACK=true``, if others
                can write to the collection: without, stored entries name the classes that are made of them.
            token: the Data API's token; None takes ``ASTRA_DB_APPLICATION_TOKEN``.
            keyspace: None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
            environment: which service it is; only Astra DB behind a domain of your own needs it.
            setup_mode: when the collection is made.
            pre_delete_collection: drop the collection before it is made.
            api_options: an astrapy ``APIOptions``.
            request_timeout_s: seconds for one request.
            deadline_s: seconds that an operation goes on trying without any success.
            wake_timeout_s: seconds that a hibernated Astra database is waited for.
            ttl_s: seconds after which an entry expires whose ``CachePolicy`` has no ``ttl``; None for ever.
            encryption: the keys that entries are encrypted with.
            statistics: whether ``statistics`` counts.
            namespaced: over HTTP, whether the collection is made so that one node's entries are cleared without listing
                all others'.

        Raises:
            ConfigError: an argument is wrong.
            CollectionConflictError: the collection exists with other settings.
        """
        token = masked(token)
        super().__init__(serde=serde)
        self._store = KVByteStore(
            collection,
            url,
            token=token,
            keyspace=keyspace,
            environment=environment,
            setup_mode=setup_mode,
            pre_delete_collection=pre_delete_collection,
            api_options=api_options,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s,
            ttl_s=ttl_s,
            encryption=encryption,
            statistics=statistics,
            namespaced=namespaced,
        )

    def __repr__(self) -> str:
        return f"LangGraphCache over {self._store!r}"

    # -- LangGraph's interface ----------------------------------------------------------------------------------------

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Return what is there of the keys, each with its value; a missing key is left out.

        Args:
            keys: pairs of a namespace, a tuple of labels that are not empty, and a key.

        Raises:
            InvalidKeyError: a label is empty, or a key takes more than about 8,000 bytes of UTF-8 with its labels.
        """
        wanted = _names(keys)
        try:
            values = self._store.mget(list(wanted))
        except DamagedValueError as error:
            values = _undamaged(error, wanted)
        return whole(self._unpacked(wanted, values))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """As ``get``."""
        wanted = _names(keys)
        try:
            values = await self._store.amget(list(wanted))
        except DamagedValueError as error:
            values = _undamaged(error, wanted)
        return await in_slices(self._unpacked(wanted, values))

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep the values.

        Args:
            pairs: for each key a value, and the seconds that it lives: None for the cache's own ``ttl_s``; of 0 or less
                nothing is kept, as it has expired.

        Raises:
            InvalidKeyError: see ``get``.
            UsageError: seconds are no number.
        """
        gone, kept = whole(self._packed(pairs))
        if gone:
            self._store.mdelete(gone)
        for ttl_s, entries in kept.items():
            self._store.mset(entries, ttl_s=ttl_s)

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """As ``set``."""
        gone, kept = await in_slices(self._packed(pairs))
        if gone:
            await self._store.amdelete(gone)
        for ttl_s, entries in kept.items():
            await self._store.amset(entries, ttl_s=ttl_s)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of the namespaces, not of those below them; None: all that is in the collection.

        Args:
            namespaces: each a tuple of labels. ``graph.clear_cache(nodes)`` says those of its nodes.
        """
        for prefix in _prefixes(namespaces):
            self._store.clear(prefix)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """As ``clear``."""
        for prefix in _prefixes(namespaces):
            await self._store.aclear(prefix)

    # -- how entries are kept -----------------------------------------------------------------------------------------

    def _packed(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> Steps[tuple[list[str], _Expiring]]:
        """Return which keys are to be removed, and the entries that are to be kept."""
        gone: list[str] = []
        kept: _Expiring = {}
        for number, (key, (value, ttl_s)) in enumerate(pairs.items()):
            if number:
                yield
            name = _name(key)
            has_expired = isinstance(ttl_s, int | float) and ttl_s <= 0
            entry = None if has_expired else self._packed_value(key, value)
            if entry is None:
                gone.append(name)
            else:
                kept.setdefault(checked_ttl(ttl_s), []).append((name, entry))
        return gone, kept

    def _packed_value(self, key: FullKey, value: ValueT) -> bytes | None:
        """Return what keeps a value; None, and a warning, where nothing does."""
        try:
            return self._dumped(value)
        except InvalidValueError as error:
            reason = str(error)
        except Exception as error:  # whatever the serializer raises; the node's result is good all the same
            reason = f"its serializer raises {type(error).__name__}"
        _logger.warning("The result %s is not cached: %s", shown(key), reason)
        return None

    def _dumped(self, value: ValueT) -> bytes:
        kind, payload = self.serde.dumps_typed(value)
        if _is_pickle(kind):
            raise InvalidValueError("a pickle is not stored")
        entry = b"%b\0%b" % (kind.encode(), payload)
        if len(entry) > BYTES_VALUE_MAX:
            raise InvalidValueError(f"it takes {len(entry):,} bytes, the limit is {BYTES_VALUE_MAX:,}")
        return entry

    def _unpacked(self, wanted: Mapping[str, FullKey], entries: Sequence[bytes | None]) -> Steps[dict[FullKey, ValueT]]:
        """Return what the entries keep, of those that are there and can be read."""
        pairs = [(key, entry) for key, entry in zip(wanted.values(), entries, strict=True) if entry is not None]
        found: dict[FullKey, ValueT] = {}
        for number, some in enumerate(by_bytes(pairs, lambda pair: len(pair[1]))):
            if number:
                yield
            for key, entry in some:
                try:
                    found[key] = self._loaded(entry)
                except Exception as error:  # whatever the serializer, or what it makes, raises of such bytes
                    reason = str(error) if isinstance(error, UndecodableError) else type(error).__name__
                    _logger.warning("The cached result %s is passed over: it cannot be read: %s", shown(key), reason)
        return found

    def _loaded(self, entry: bytes) -> ValueT:
        kind, mark, payload = entry.partition(b"\0")
        if not mark:
            raise UndecodableError("it is no entry of a LangGraphCache, which needs a collection of its own")
        if _is_pickle(kind.decode()):
            raise UndecodableError("a pickle is not loaded")
        value: ValueT = self.serde.loads_typed((kind.decode(), payload))
        return value


def _is_pickle(kind: str) -> bool:
    """Tell whether a serializer's kind is a pickle, also one that it has encrypted (``pickle+aes``)."""
    return kind.partition("+")[0] == "pickle"


# -- keys -------------------------------------------------------------------------------------------------------------


def _name(key: FullKey) -> str:
    """Return the key of a store: no two pairs of a namespace and a key have one text."""
    labels, name = key
    return _prefix(labels) + check_key(name, _KEYS)


def _prefix(labels: Namespace) -> str:
    return namespace_prefix(labels) or _NO_NAMESPACE


def _names(keys: Sequence[FullKey]) -> dict[str, FullKey]:
    return {_name(key): (tuple(key[0]), key[1]) for key in keys}


def _prefixes(namespaces: Sequence[Namespace] | None) -> list[str | None]:
    return [None] if namespaces is None else list(dict.fromkeys(map(_prefix, namespaces)))


def _undamaged(error: DamagedValueError, wanted: Mapping[str, FullKey]) -> list[bytes | None]:
    """Return the values that were read where others could not be."""
    _logger.warning("Cached results are passed over: %s", error)
    return [error.values.get(name) for name in wanted]

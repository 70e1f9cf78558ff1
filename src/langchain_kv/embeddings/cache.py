"""``EmbeddingCache``: an ``Embeddings`` that asks a model only for what no store has."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from langchain_core.embeddings import Embeddings
from langchain_core.stores import BaseStore

from langchain_kv.embeddings.answers import ArrayAnswer, ListAnswer, VectorAnswer
from langchain_kv.embeddings.call import Call, Older, OnStoreError, Rules, Shelf
from langchain_kv.embeddings.keys import key_function
from langchain_kv.embeddings.older import KeyEncoder, OlderCache
from langchain_kv.embeddings.tally import EmbeddingStatistics
from langchain_kv.embeddings.vectors import imported_numpy
from langchain_kv.errors import ConfigError, UnsupportedError, UsageError
from langchain_kv.runtime.plans import arun, run
from langchain_kv.stores.base import KVBaseStore, KVByteStore
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import masked

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.arguments import Token
    from langchain_kv.places.base import Place

__all__ = ["EmbeddingCache"]

BATCH_SIZE: Final = 200
"""Texts that a model is given at once: what is lost of its work where the process ends in the midst."""

_NAMES: Final = ("model", "model_name", "model_id")
"""Where models of LangChain have their names."""


class EmbeddingCache(Embeddings):
    """Keeps each vector that a model makes, as bytes, and asks the model only for texts that are new.

    Documents and queries are kept apart, because many models embed them differently. A text that is given twice is
    embedded once, also where several threads and event loops of the process ask for it at a time. What the model
    answers is written batch by batch before it is asked for more. A vector is kept as float32 where that is every
    number as it is, else as float64. Every method has an async twin with a leading ``a``, which calls the model's.

    Attributes:
        underlying_embeddings: the model.
        document_embedding_store: the store of the documents' vectors.
        query_embedding_store: the store of the queries' vectors; None where they are not cached.
        name: the model's name.
        batch_size: how many texts the model is given at once.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> model = DeterministicFakeEmbedding(size=3)
        >>> with EmbeddingCache(model, "memory:", name="fake-3") as cache:
        ...     vectors = cache.embed_documents(["a", "b", "a"])
        ...     assert cache.embed_documents(["b"]) == vectors[1:2]
        ...     cache.stats().embedded
        2
    """

    def __init__(
        self,
        model: Embeddings,
        url: str | Place | BaseStore[str, bytes] | None = None,
        *,
        name: str | None = None,
        collection: str = "embeddings",
        dimensions: int | None = None,
        batch_size: int = BATCH_SIZE,
        cache_queries: bool | BaseStore[str, bytes] = True,
        on_store_error: OnStoreError = "raise",
        read_through: OlderCache | None = None,
        token: Token | None = None,
        keyspace: str | None = None,
        setup_mode: AnySetupMode = SetupMode.SYNC,
        request_timeout_s: float | None = None,
        deadline_s: float | None = None,
        ttl_s: float | None = None,
        refresh_on_read: bool = False,
        encryption: Encryption | None = None,
    ) -> None:
        """Open a cache.

        Args:
            model: what embeds.
            url: where vectors live, as of ``KVByteStore``; or a byte store of LangChain's, ours or another, which the
                caller closes, and which has its own settings: then none of the arguments from ``token`` on is given.
            name: of the model, with all settings that make its vectors other ones: vectors are found again under it
                only. None takes ``model``, ``model_name`` or ``model_id`` of the model.
            collection: the collection's name. Several models may share one.
            dimensions: how many numbers a vector has. Vectors are found again under it only. None takes ``dimensions``
                of the model where it has that, else whatever comes.
            batch_size: how many texts the model is given at once; each batch is written before the next.
            cache_queries: whether vectors of queries are kept, too; or another byte store for them.
            on_store_error: ``raise``; or ``ignore``, to embed without the cache what a failing store does not give,
                which ``stats()`` counts. A store that is not reached tries for ``deadline_s`` before it fails, and
                fails in this constructor unless ``setup_mode`` is ASYNC or OFF.
            read_through: a cache that ``CacheBackedEmbeddings`` wrote: what only it has is kept here as it is found.
            token: see ``KVByteStore``.
            keyspace: see ``KVByteStore``.
            setup_mode: see ``KVByteStore``.
            request_timeout_s: see ``KVByteStore``.
            deadline_s: see ``KVByteStore``.
            ttl_s: seconds after which a vector expires.
            refresh_on_read: whether a vector that is read lives for ``ttl_s`` from then on. Not over HTTP.
            encryption: the keys that vectors are encrypted with. Keys of values are hashes of the texts.

        Raises:
            ConfigError: an argument is wrong, or the model has no name.
        """
        token = masked(token)
        if not isinstance(model, Embeddings):
            raise ConfigError(f"model must be an Embeddings of LangChain's, got {type_name(model)}.")
        if not isinstance(cache_queries, bool | BaseStore):
            raise ConfigError(f"cache_queries must be True, False or a byte store, got {type_name(cache_queries)}.")
        size = getattr(model, "dimensions", None) if dimensions is None else dimensions
        self.underlying_embeddings = model
        self.name = _name_of(model) if name is None else name
        self.batch_size = batch_size
        self._on_store_error = on_store_error
        self._read_through = read_through
        self._dimensions: int | None = size if dimensions is not None or type(size) is int else None
        self._check()
        self._owned, self.document_embedding_store = _opened(
            url,
            {"collection": collection, "setup_mode": setup_mode},
            {"token": token, "keyspace": keyspace, "request_timeout_s": request_timeout_s, "deadline_s": deadline_s}
            | {"ttl_s": ttl_s, "refresh_on_read": refresh_on_read, "encryption": encryption},
        )
        queries = self.document_embedding_store if cache_queries is True else cache_queries
        self.query_embedding_store = queries if isinstance(queries, BaseStore) else None
        self._open()

    @classmethod
    def from_bytes_store(
        cls,
        underlying_embeddings: Embeddings,
        document_embedding_cache: BaseStore[str, bytes],
        *,
        namespace: str = "",
        batch_size: int | None = None,
        query_embedding_cache: bool | BaseStore[str, bytes] = False,
        key_encoder: KeyEncoder = "sha1",
        name: str | None = None,
    ) -> Self:
        """Open a cache with the arguments of ``CacheBackedEmbeddings.from_bytes_store``, over what that has cached.

        What it finds there it keeps anew, in the same store and in its own form; nothing is removed. Of a store that
        documents and queries shared, documents are read only, because nobody can tell any more whose a vector is.

        Args:
            underlying_embeddings: the model.
            document_embedding_cache: the byte store; the caller closes it.
            namespace: what older keys begin with, and the model's name, unless ``name`` is given.
            batch_size: how many texts the model is given at once; None: 200.
            query_embedding_cache: whether queries are cached, too; or another byte store for them.
            key_encoder: how older keys were made: ``sha1``, ``blake2b``, ``sha256``, ``sha512`` or a function. New ones
                are made by this cache's own rule.
            name: of the model; None takes the namespace, then what the model says.

        Raises:
            ConfigError: an argument is wrong, or there is no name.
        """
        queries = query_embedding_cache if isinstance(query_embedding_cache, BaseStore) else None
        return cls(
            underlying_embeddings,
            document_embedding_cache,
            name=name or namespace or None,
            batch_size=BATCH_SIZE if batch_size is None else batch_size,
            cache_queries=query_embedding_cache,
            read_through=OlderCache(document_embedding_cache, namespace, key_encoder, queries),
        )

    # -- LangChain's interface ----------------------------------------------------------------------------------------

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text, in order; repeats are copies.

        Raises:
            BadVectorError: the model answered too few or too many vectors, or some that are none.
            UsageError: ``texts`` is not a list of strings.
            StoreError: the store failed, and ``on_store_error`` is ``raise``.
        """
        listed = _checked_texts(texts)
        answer = ListAnswer(len(listed))
        self._run(self._documents, listed, answer)
        return answer.vectors

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As ``embed_documents``."""
        listed = _checked_texts(texts)
        answer = ListAnswer(len(listed))
        await self._arun(self._documents, listed, answer)
        return answer.vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query, as of ``embed_documents``."""
        if self._queries is None:
            return self.underlying_embeddings.embed_query(text)
        listed = _checked_texts([text])
        answer = ListAnswer(1)
        self._run(self._queries, listed, answer)
        vector: list[float] = answer.vectors[0]
        return vector

    async def aembed_query(self, text: str) -> list[float]:
        """As ``embed_query``."""
        if self._queries is None:
            return await self.underlying_embeddings.aembed_query(text)
        listed = _checked_texts([text])
        answer = ListAnswer(1)
        await self._arun(self._queries, listed, answer)
        vector: list[float] = answer.vectors[0]
        return vector

    # -- beyond it ----------------------------------------------------------------------------------------------------

    def embed_documents_array(self, texts: list[str]) -> NDArray[float32]:
        """Return the same as one array with a row for each text, which takes a third of the time and an eighth of the
        memory. Numbers that float32 does not have are rounded. It needs numpy, the extra ``vector``.

        Raises:
            UnsupportedError: numpy is not installed, or a number is beyond float32.
        """
        listed = _checked_texts(texts)
        answer = _array_answer(len(listed))
        self._run(self._documents, listed, answer)
        array: NDArray[float32] = answer.array
        return array

    async def aembed_documents_array(self, texts: list[str]) -> NDArray[float32]:
        """As ``embed_documents_array``."""
        listed = _checked_texts(texts)
        answer = _array_answer(len(listed))
        await self._arun(self._documents, listed, answer)
        array: NDArray[float32] = answer.array
        return array

    def stats(self) -> EmbeddingStatistics:
        """Return what this cache has done since it was made, in this process."""
        return self._rules.tally.statistics

    def prune(self) -> int:
        """Remove for good what has expired in the stores of this cache; return how many vectors that were.

        Raises:
            UnsupportedError: a store is not one of this package.
        """
        return sum(store.purge() for store in self._kv_stores())

    async def aprune(self) -> int:
        """As ``prune``."""
        return sum([await store.apurge() for store in self._kv_stores()])

    def close(self) -> None:
        """Close the store, unless the caller gave it. Idempotent."""
        if self._owned is not None:
            self._owned.close()

    async def aclose(self) -> None:
        """As ``close``."""
        if self._owned is not None:
            await self._owned.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        if self._owned is not None:
            await self._owned.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if "_rules" not in self.__dict__:  # in the traceback of a constructor that failed
            return f"<{type(self).__name__}, not made>"
        return f"{type(self).__name__}({self.name!r}, {self.document_embedding_store!r})"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError("A model's name is text that is not empty: give name='the-model'.")
        for argument, value in (("batch_size", self.batch_size), ("dimensions", self._dimensions)):
            is_left_out = value is None and argument == "dimensions"
            if not is_left_out and (type(value) is not int or value < 1):
                raise ConfigError(f"{argument} must be a whole number of at least 1, got {value!r:.40}.")
        if self._on_store_error not in ("raise", "ignore"):
            raise ConfigError(f"on_store_error must be 'raise' or 'ignore', got {self._on_store_error!r:.40}.")
        if self._read_through is not None and not isinstance(self._read_through, OlderCache):
            raise ConfigError(
                f"read_through must be an OlderCache, got {type_name(self._read_through)}: give OlderCache(store,"
                " namespace=..., key_encoder=...)."
            )

    def _open(self) -> None:
        model, older = self.underlying_embeddings, self._read_through
        self._rules = Rules(self.name, self._dimensions, self.batch_size, self._on_store_error)
        self._documents = Shelf(
            self.document_embedding_store,
            key_function(self.name, "document", self._dimensions),
            model.embed_documents,
            model.aembed_documents,
            None if older is None else Older(older.store, older.key),
        )
        self._queries = None
        if self.query_embedding_store is not None:
            asked = _Queries(model)
            self._queries = Shelf(
                self.query_embedding_store,
                key_function(self.name, "query", self._dimensions),
                asked.embed,
                asked.aembed,
                None if older is None or older.queries is None else Older(older.queries, older.key),
            )

    def _run(self, shelf: Shelf, texts: list[str], answer: VectorAnswer) -> None:
        run(Call(shelf, self._rules, answer, None).run(texts))

    async def _arun(self, shelf: Shelf, texts: list[str], answer: VectorAnswer) -> None:
        await arun(Call(shelf, self._rules, answer, asyncio.get_running_loop()).run(texts))

    def _kv_stores(self) -> list[KVBaseStore[Any]]:
        stores = [self.document_embedding_store]
        if self.query_embedding_store not in (None, self.document_embedding_store):
            stores.append(self.query_embedding_store)
        return [_checked_kv_store(store) for store in stores]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OPENED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __copy__(self) -> Self:
        # A shallow copy would share, and close, the store of its original.
        own = copy.copy(self._owned)
        result = object.__new__(type(self))
        result.__setstate__(
            {name: own if value is self._owned else value for name, value in self.__getstate__().items()}
        )
        return result


_OPENED: Final = ("_rules", "_documents", "_queries")
"""What a copy has anew."""


class _Queries:
    """A model, asked for the one query of a list."""

    def __init__(self, model: Embeddings) -> None:
        self._model = model

    def embed(self, texts: list[str]) -> list[Any]:
        return [self._model.embed_query(texts[0])]

    async def aembed(self, texts: list[str]) -> list[Any]:
        return [await self._model.aembed_query(texts[0])]


def _opened(
    url: str | Place | BaseStore[str, bytes] | None, always: dict[str, Any], settings: dict[str, Any]
) -> tuple[KVByteStore | None, BaseStore[str, bytes]]:
    """Return the store that is to be closed, if there is one, and the store."""
    if not isinstance(url, BaseStore):
        store = KVByteStore(url=url, **always, **settings)
        return store, store
    given = [name for name, value in settings.items() if value not in (None, False)]
    if given:
        raise ConfigError(f"A store has its own {' and '.join(given)}: give them to the store, not to the cache.")
    return None, url


def _name_of(model: Embeddings) -> str:
    names = (getattr(model, attribute, None) for attribute in _NAMES)
    found = next((name for name in names if isinstance(name, str) and name), None)
    if found is None:
        raise ConfigError(
            f"{type_name(model)} does not say its model's name, without which another model's vectors would be taken"
            " for its own: give name='the-model' (from_bytes_store: namespace='the-model')."
        )
    return found


def _checked_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise UsageError(f"texts must be a list of strings, got one {type_name(texts)}: pass [text].")
    listed = list(texts)
    if set(map(type, listed)) <= {str}:
        return listed
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise UsageError(f"Each text must be a string, and text {place:,} is {type_name(text)}.")
    return [str.__str__(text) for text in listed]


def _array_answer(count: int) -> ArrayAnswer:
    if imported_numpy() is None:
        raise UnsupportedError(
            "embed_documents_array needs numpy: pip install 'langchain-kv[vector]', or use embed_documents."
        )
    return ArrayAnswer(count)


def _checked_kv_store(store: BaseStore[str, bytes] | None) -> KVBaseStore[Any]:
    if not isinstance(store, KVBaseStore):
        raise UnsupportedError(
            f"A {type_name(store)} does not say what has expired: use a KVByteStore, or its own way to remove that."
        )
    return store

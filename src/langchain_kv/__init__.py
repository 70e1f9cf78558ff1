"""Key-value stores for LangChain: one class, a URL says where values live.

>>> from langchain_kv import KVStore
>>> store = KVStore("kv", "memory:")
>>> store.mset([("a", {"n": 1}), ("b", [1, 2])])
>>> store.mget(["a", "x"])
[{'n': 1}, None]
"""

from langchain_kv._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from langchain_kv.backends.async_base import AsyncBackend
    from langchain_kv.backends.base import Backend, Damaged, Found, Kind, Record, SyncBackend
    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.backends.wrappers import Statistics, Wrapper
    from langchain_kv.documents.parents import ParentDocuments
    from langchain_kv.documents.store import DocumentStore
    from langchain_kv.embeddings.cache import EmbeddingCache
    from langchain_kv.embeddings.older import OlderCache
    from langchain_kv.embeddings.tally import EmbeddingStatistics
    from langchain_kv.errors import (
        AstraDBError,
        AuthError,
        BadReplyError,
        BadVectorError,
        CollectionConflictError,
        ConfigError,
        ConnectError,
        DamagedValueError,
        DataAPIError,
        DocumentExistsError,
        EngineBusyError,
        EngineError,
        EngineFileError,
        InvalidKeyError,
        InvalidValueError,
        InvalidValueTypeError,
        LimitError,
        PartialWriteError,
        RequestTimeoutError,
        SetupPendingError,
        StoreClosedError,
        StoreError,
        TransportError,
        UnknownCollectionError,
        UnknownKeyspaceError,
        UnsupportedError,
        UsageError,
    )
    from langchain_kv.langgraph.cache import LangGraphCache as LangGraphCache
    from langchain_kv.langgraph.store import LangGraphStore as LangGraphStore
    from langchain_kv.llm_cache import KVCache
    from langchain_kv.places.base import BackendOptions, Place
    from langchain_kv.places.mongodb import MongoDBClientPlace
    from langchain_kv.places.redis import RedisClientPlace
    from langchain_kv.places.sql import SQLPlace
    from langchain_kv.stores.astradb import AstraDBBaseStore, AstraDBByteStore, AstraDBStore
    from langchain_kv.stores.base import KVBaseStore, KVByteStore, KVStore
    from langchain_kv.stores.cassandra import CassandraByteStore
    from langchain_kv.stores.mongodb import MongoDBByteStore, MongoDBStore
    from langchain_kv.stores.redis import RedisStore
    from langchain_kv.stores.setup import SetupMode
    from langchain_kv.stores.sql import SQLStore
    from langchain_kv.stores.upstash import UpstashRedisByteStore, UpstashRedisStore

__all__ = [
    "AstraDBBaseStore",
    "AstraDBByteStore",
    "AstraDBError",
    "AstraDBStore",
    "AsyncBackend",
    "AuthError",
    "Backend",
    "BackendOptions",
    "BadReplyError",
    "BadVectorError",
    "CassandraByteStore",
    "CollectionConflictError",
    "ConfigError",
    "ConnectError",
    "Damaged",
    "DamagedValueError",
    "DataAPIError",
    "DocumentExistsError",
    "DocumentStore",
    "EmbeddingCache",
    "EmbeddingStatistics",
    "Encryption",
    "EngineBusyError",
    "EngineError",
    "EngineFileError",
    "Found",
    "InvalidKeyError",
    "InvalidValueError",
    "InvalidValueTypeError",
    "KVBaseStore",
    "KVByteStore",
    "KVCache",
    "KVStore",
    "Kind",
    "LimitError",
    "MongoDBByteStore",
    "MongoDBClientPlace",
    "MongoDBStore",
    "ParentDocuments",
    "OlderCache",
    "PartialWriteError",
    "Place",
    "Record",
    "RedisClientPlace",
    "RedisStore",
    "RequestTimeoutError",
    "SQLPlace",
    "SQLStore",
    "SetupMode",
    "SetupPendingError",
    "Statistics",
    "StoreClosedError",
    "StoreError",
    "SyncBackend",
    "TransportError",
    "UnknownCollectionError",
    "UnknownKeyspaceError",
    "UnsupportedError",
    "UpstashRedisByteStore",
    "UpstashRedisStore",
    "UsageError",
    "Wrapper",
    "__version__",
]

_HOMES = {
    name: module
    for module, names in {
        "backends.async_base": ("AsyncBackend",),
        "backends.base": ("Backend", "Damaged", "Found", "Kind", "Record", "SyncBackend"),
        "backends.encryption": ("Encryption",),
        "backends.wrappers": ("Statistics", "Wrapper"),
        "documents.parents": ("ParentDocuments",),
        "documents.store": ("DocumentStore",),
        "embeddings.cache": ("EmbeddingCache",),
        "embeddings.older": ("OlderCache",),
        "embeddings.tally": ("EmbeddingStatistics",),
        "langgraph.cache": ("LangGraphCache",),
        "langgraph.store": ("LangGraphStore",),
        "llm_cache": ("KVCache",),
        "places.base": ("BackendOptions", "Place"),
        "places.mongodb": ("MongoDBClientPlace",),
        "places.redis": ("RedisClientPlace",),
        "places.sql": ("SQLPlace",),
        "stores.astradb": ("AstraDBBaseStore", "AstraDBByteStore", "AstraDBStore"),
        "stores.base": ("KVBaseStore", "KVByteStore", "KVStore"),
        "stores.cassandra": ("CassandraByteStore",),
        "stores.mongodb": ("MongoDBByteStore", "MongoDBStore"),
        "stores.redis": ("RedisStore",),
        "stores.setup": ("SetupMode",),
        "stores.sql": ("SQLStore",),
        "stores.upstash": ("UpstashRedisByteStore", "UpstashRedisStore"),
    }.items()
    for name in names
}
"""In which module each public name is, but for the errors."""

_OF_EXTRAS = ("LangGraphCache", "LangGraphStore")
"""Names whose classes inherit from those of an extra's library: they are imported by name, and not in ``__all__``, so
that ``import *`` works without it."""

# Nothing is loaded before it is asked for: the stores load langchain-core, which takes half a second. Type checkers do
# not see this, because they would take any name, a misspelt one too, for one that it answers.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__ and name not in _OF_EXTRAS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        from langchain_kv import errors
        from langchain_kv.runtime.forks import importing

        if name in errors.__all__:
            item = getattr(errors, name)
        else:
            with importing.lock:
                item = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = item
        return item

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

"""Key-value stores for LangChain: one class, a URL says where values live.

>>> from langchain_kv import KVStore
>>> store = KVStore("kv", "memory:")
>>> store.mset([("a", {"n": 1}), ("b", [1, 2])])
>>> store.mget(["a", "x"])
[{'n': 1}, None]
"""

from langchain_kv._version import __version__
from langchain_kv.errors import (
    AstraDBError,
    AuthError,
    BadReplyError,
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
    UsageError,
)
from langchain_kv.stores.astradb import AstraDBBaseStore, AstraDBByteStore, AstraDBStore
from langchain_kv.stores.base import KVByteStore, KVStore
from langchain_kv.stores.setup import SetupMode

__all__ = [
    "AstraDBBaseStore",
    "AstraDBByteStore",
    "AstraDBError",
    "AstraDBStore",
    "AuthError",
    "BadReplyError",
    "CollectionConflictError",
    "ConfigError",
    "ConnectError",
    "DamagedValueError",
    "DataAPIError",
    "DocumentExistsError",
    "EngineBusyError",
    "EngineError",
    "EngineFileError",
    "InvalidKeyError",
    "InvalidValueError",
    "InvalidValueTypeError",
    "KVByteStore",
    "KVStore",
    "LimitError",
    "PartialWriteError",
    "RequestTimeoutError",
    "SetupMode",
    "SetupPendingError",
    "StoreClosedError",
    "StoreError",
    "TransportError",
    "UnknownCollectionError",
    "UnknownKeyspaceError",
    "UsageError",
    "__version__",
]

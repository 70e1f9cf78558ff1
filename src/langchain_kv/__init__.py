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
    from langchain_kv.backends.base import AsyncBackend, Backend, Damaged, Found, Kind, Record, SyncBackend
    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.backends.wrappers import Statistics, Wrapper
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
        UnsupportedError,
        UsageError,
    )
    from langchain_kv.stores.astradb import AstraDBBaseStore, AstraDBByteStore, AstraDBStore
    from langchain_kv.stores.base import KVBaseStore, KVByteStore, KVStore
    from langchain_kv.stores.setup import SetupMode

__all__ = [
    "AstraDBBaseStore",
    "AstraDBByteStore",
    "AstraDBError",
    "AstraDBStore",
    "AsyncBackend",
    "AuthError",
    "Backend",
    "BadReplyError",
    "CollectionConflictError",
    "ConfigError",
    "ConnectError",
    "Damaged",
    "DamagedValueError",
    "DataAPIError",
    "DocumentExistsError",
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
    "KVStore",
    "Kind",
    "LimitError",
    "PartialWriteError",
    "Record",
    "RequestTimeoutError",
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
    "UsageError",
    "Wrapper",
    "__version__",
]


_HOMES = {
    **dict.fromkeys(
        ("AsyncBackend", "Backend", "Damaged", "Found", "Kind", "Record", "SyncBackend"), "langchain_kv.backends.base"
    ),
    **dict.fromkeys(("Statistics", "Wrapper"), "langchain_kv.backends.wrappers"),
    **dict.fromkeys(("KVBaseStore", "KVByteStore", "KVStore"), "langchain_kv.stores.base"),
    "Encryption": "langchain_kv.backends.encryption",
    "SetupMode": "langchain_kv.stores.setup",
}
"""Where the names are that are neither an error nor one of the stores with upstream's names."""


def __getattr__(name: str) -> object:
    # Nothing is loaded before it is asked for: the stores load langchain-core, which takes half a second.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from langchain_kv import errors

    if name in errors.__all__:
        item = getattr(errors, name)
    else:
        item = getattr(import_module(_HOMES.get(name, "langchain_kv.stores.astradb")), name)
    globals()[name] = item
    return item


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

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
    "UnsupportedError",
    "UsageError",
    "__version__",
]


def __getattr__(name: str) -> object:
    # Nothing is loaded before it is asked for: the stores load langchain-core, which takes half a second.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from langchain_kv import errors

    if name in errors.__all__:
        item = getattr(errors, name)
    else:
        from langchain_kv.stores import astradb, base, setup

        item = next(getattr(module, name) for module in (astradb, base, setup) if name in module.__all__)
    globals()[name] = item
    return item


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

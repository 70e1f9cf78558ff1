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
    from langchain_kv.places.base import BackendOptions, Place
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
    "BackendOptions",
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
    "Place",
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

# Nothing is loaded before it is asked for: the stores load langchain-core, which takes half a second. Type checkers do
# not see this, because they would take any name, a misspelt one too, for one that it answers.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from langchain_kv import errors
        from langchain_kv.runtime.forks import importing

        if name in errors.__all__:
            item = getattr(errors, name)
        else:
            with importing.lock:
                item = _loaded(name)
        globals()[name] = item
        return item

    def _loaded(name: str) -> object:
        if name == "Encryption":
            from langchain_kv.backends import encryption as home
        elif name == "AsyncBackend":
            from langchain_kv.backends import async_base as home
        elif name in ("Statistics", "Wrapper"):
            from langchain_kv.backends import wrappers as home
        elif name in ("Backend", "Damaged", "Found", "Kind", "Record", "SyncBackend"):
            from langchain_kv.backends import base as home
        elif name in ("BackendOptions", "Place"):
            from langchain_kv.places import base as home
        elif name in ("KVBaseStore", "KVByteStore", "KVStore"):
            from langchain_kv.stores import base as home
        elif name == "SetupMode":
            from langchain_kv.stores import setup as home
        else:
            from langchain_kv.stores import astradb as home
        return getattr(home, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

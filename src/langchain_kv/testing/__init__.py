"""For tests: a Data API in the test's own process, with faults at will, and what stores and backends promise, as tests.

The pytest fixtures ``data_api`` and ``data_api_session`` are there as soon as the package is installed; see
``plugin.py``. ``DataAPIServer`` is the same outside pytest. ``StoreContract`` and ``BackendContract`` are for whoever
adds a place for values. All of it needs the extra ``testing``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_kv.errors import ConfigError

if TYPE_CHECKING:
    from langchain_kv.testing.backend_contract import BackendContract
    from langchain_kv.testing.faults import Received
    from langchain_kv.testing.server import DataAPIServer
    from langchain_kv.testing.store_contract import StoreContract

__all__ = ["BackendContract", "DataAPIServer", "Received", "StoreContract"]

_HOMES = {
    "BackendContract": "backend_contract",
    "DataAPIServer": "server",
    "Received": "faults",
    "StoreContract": "store_contract",
}


def __getattr__(name: str) -> Any:
    # pytest loads the plugin, and with it this package, wherever langchain-kv is installed, with the extra or without.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"langchain_kv.testing needs {error.name}: install the extra, pip install 'langchain-kv[testing]'."
        ) from None

"""For tests of code that uses a store or the Data API: a server in the test's own process, with faults at will.

The pytest fixtures ``data_api`` and ``data_api_session`` are there as soon as the package is installed; see
``plugin.py``. ``DataAPIServer`` is the same outside pytest. All of it needs the extra ``testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_kv.errors import ConfigError

if TYPE_CHECKING:
    from langchain_kv.testing.faults import Received
    from langchain_kv.testing.server import DataAPIServer

__all__ = ["DataAPIServer", "Received"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin, and with it this package, wherever langchain-kv is installed, with the extra or without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_kv.testing import faults, server
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"langchain_kv.testing needs {error.name}: install the extra, pip install 'langchain-kv[testing]'."
        ) from None
    return {"DataAPIServer": server.DataAPIServer, "Received": faults.Received}[name]

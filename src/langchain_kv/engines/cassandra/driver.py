"""Whether the driver of Apache Cassandra can be used here, found out before anything imports it."""

from __future__ import annotations

from langchain_kv.errors import ConfigError
from langchain_kv.runtime import threads

__all__ = ["require_driver"]


def require_driver() -> None:
    """Raise ConfigError, which says what to do, where the driver is missing or cannot run."""
    if threads.is_patched():
        # The driver has its connections in greenlets of the thread that made them, which others would wait for in vain.
        raise ConfigError(
            "cassandra: URLs do not work where gevent or eventlet make greenlets of threads: run lckv serve --db with"
            " this URL in a process of its own, and give its http: URL."
        )
    try:
        import cassandra.cluster  # noqa: F401
    except ImportError:
        raise ConfigError(
            "cassandra: URLs need the driver, which is not installed: pip install 'langchain-kv[cassandra]'"
        ) from None
    except Exception as error:  # the driver's DependencyException: it found no event loop
        raise ConfigError(
            f"The driver of cassandra: URLs cannot run here ({type(error).__name__}): from Python 3.12 on it needs its"
            " libev extension. Install a binary wheel (pip install --only-binary :all: cassandra-driver), or the"
            " headers of libev (libev-dev) and build it again."
        ) from None

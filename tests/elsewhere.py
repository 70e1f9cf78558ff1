"""The targets beside those of ``places``: SQL databases, by drivers of both kinds, Redis, Upstash, MongoDB."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from installed import need
from mongodb_servers import SERVERS, running_server
from mongodb_servers import missing as missing_mongodb
from redis_node import missing as missing_redis
from redis_node import running_redis
from sql_servers import DATABASES, running, server_of, url_of
from upstash_server import running_upstash

__all__ = ["TARGETS", "running_target"]

TARGETS = [
    pytest.param(name, id=name, marks=[] if name.startswith("sqlite") else pytest.mark.slow)
    for name in (*DATABASES, "redis", "upstash", *SERVERS)
]
"""Their names, as parameters of a fixture."""


@contextmanager
def running_target(name: str) -> Iterator[dict[str, Any]]:
    """Start what a target needs; yield the arguments of a store on it."""
    with ExitStack() as ends:
        # Not pytest's directory, which only its owner may enter.
        directory = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True)))
        if name in DATABASES:
            yield {"url": url_of(name, ends.enter_context(running(server_of(name), directory)))}
            return
        if name in SERVERS:
            need(missing_mongodb(name))
            yield {"url": ends.enter_context(running_server(name, directory))}
            return
        need(missing_redis("redis"))
        node = ends.enter_context(running_redis(directory))
        if name == "redis":
            yield {"url": node.url}
            return
        server = ends.enter_context(running_upstash(node.port))
        yield {"url": f"upstash+{server.url}", "token": server.token}

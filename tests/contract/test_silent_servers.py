"""A server that takes connections and never answers holds no call up for ever."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator

import pytest

from installed import need
from langchain_kv import ConnectError, KVStore, RequestTimeoutError

pytestmark = pytest.mark.slow


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a listener whose connections the kernel takes, and which nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("module", "url"),
    [
        ("redis", "redis://127.0.0.1:{}/0"),
        ("pymongo", "mongodb://127.0.0.1:{}/db"),
        ("psycopg", "postgresql+psycopg://u:p@127.0.0.1:{}/db"),
        ("asyncpg", "postgresql+asyncpg://u:p@127.0.0.1:{}/db"),
        ("pymysql", "mysql+pymysql://u:p@127.0.0.1:{}/db"),
        ("asyncmy", "mysql+asyncmy://u:p@127.0.0.1:{}/db"),
        ("aiohttp", "upstash+http://127.0.0.1:{}"),
    ],
)
def test_a_server_that_never_answers_is_told(module: str, url: str, silent_port: int) -> None:
    need("" if importlib.util.find_spec(module) else f"{module} is not installed")
    with pytest.raises((ConnectError, RequestTimeoutError)):
        KVStore("kv", url.format(silent_port), token="a token", request_timeout_s=1, deadline_s=2)

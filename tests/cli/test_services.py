"""The commands on collections against PostgreSQL, MariaDB, Redis, Upstash's interface and MongoDB, as they run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mongodb_servers
import redis_node
import sql_servers
from installed import need
from kept_collections import check_commands_on_collections
from running import Lckv
from upstash_server import TOKEN, running_upstash


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    need(redis_node.missing("redis"))
    with redis_node.running_redis(folder) as running:
        yield running.url


@contextmanager
def _upstash(folder: Path) -> Iterator[str]:
    need(redis_node.missing("redis"))
    with redis_node.running_redis(folder) as running, running_upstash(running.port) as server:
        yield f"upstash+{server.url}"


@contextmanager
def _mongodb(folder: Path) -> Iterator[str]:
    need(mongodb_servers.missing("java"))
    with mongodb_servers.running_server("java", folder) as url:
        yield url


@contextmanager
def _sql(name: str) -> Iterator[str]:
    # Not pytest's directory, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True) as folder:
        with sql_servers.running(name, Path(folder)) as url:
            yield url


SERVICES = {
    "postgresql": lambda _: _sql("postgresql"),
    "mariadb": lambda _: _sql("mariadb"),
    "redis": _redis,
    "upstash": _upstash,
    "mongodb": _mongodb,
}


@pytest.fixture(scope="module", params=SERVICES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SERVICES[request.param](tmp_path_factory.mktemp(request.param)) as url:
        yield url


@pytest.mark.slow
def test_a_service_lists_counts_checks_clears_and_drops(lckv: Lckv, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)

    check_commands_on_collections(lckv, url, keeps_empty=url.startswith("mongodb"), tells_missing=False)

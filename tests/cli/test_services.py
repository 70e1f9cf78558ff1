"""The commands on collections against Redis, Upstash's interface and MongoDB, as they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mongodb_servers
import redis_node
from installed import need
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


SERVICES = {"redis": _redis, "upstash": _upstash, "mongodb": _mongodb}


@pytest.fixture(scope="module", params=SERVICES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SERVICES[request.param](tmp_path_factory.mktemp(request.param)) as url:
        yield url


@pytest.mark.slow
def test_a_service_lists_counts_checks_clears_and_drops(lckv: Lckv, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
    db = ["--db", url]
    one, two = [*db, "--collection", "one"], [*db, "--collection", "two"]
    for where in (one, two):
        for key in ("a/1", "a/2", "b"):
            assert lckv("set", key, '{"n": 1}', *where) == (0, b"", "")
    lckv("set", "k", "1", *db, "--collection", "elsewhere", "--keyspace", "other")

    assert lckv("collections", *db).out == b"one\ntwo\n"
    assert lckv("collections", *db, "--keyspace", "other").out == b"elsewhere\n"
    assert lckv("count", *one).out == b"3\n"
    info = lckv("info", *db).out
    assert b'"name": "one", "keys": 3' in info
    assert lckv("check", *db) == (0, b"", "lckv: read 6, problems 0\n")
    assert lckv("del", "--prefix", "a/", "--yes", *one).code == 0
    assert lckv("keys", *one).out == b"b\n"
    assert lckv("clear", "--yes", *two).code == 0
    assert lckv("count", *two).out == b"0\n"
    assert lckv("drop", "--yes", *one).code == 0
    assert b"one" not in lckv("collections", *db).out
    assert lckv("get", "k", *db, "--collection", "elsewhere", "--keyspace", "other").out == b"1\n"

"""A URL with a parameter that its client library does not take is wrong usage, and not a service that is away."""

from __future__ import annotations

import importlib.util

import pytest

from installed import need
from running import Lckv, Outcome


def counted(lckv: Lckv, module: str, url: str) -> Outcome:
    need("" if importlib.util.find_spec(module) else f"{module} is not installed")
    return lckv("count", "--db", url, "--collection", "kv", "--timeout", "1")


@pytest.mark.parametrize(
    ("module", "url"),
    [
        ("psycopg", "postgresql+psycopg://u:p@127.0.0.1:1/db?nosuch=1"),
        ("psycopg", "postgresql+psycopg://u:p@127.0.0.1:1/db?sslmode=nosuch"),
        ("asyncpg", "postgresql+asyncpg://u:p@127.0.0.1:1/db?nosuch=1"),
        ("pymysql", "mysql+pymysql://u:p@127.0.0.1:1/db?nosuch=1"),
        ("pymysql", "mysql+pymysql://u:p@127.0.0.1:1/db?charset=nosuch"),
        ("asyncmy", "mysql+asyncmy://u:p@127.0.0.1:1/db?nosuch=1"),
        ("redis", "redis://127.0.0.1:1?nosuch=1"),
        ("redis", "redis://127.0.0.1:1?db=nosuch"),
        ("redis", "rediss://127.0.0.1:1?ssl_cert_reqs=nosuch"),
        ("pymongo", "mongodb://127.0.0.1:1/db?tls=true&ssl=false"),
    ],
)
def test_a_parameter_that_is_not_taken_is_exit_code_2(lckv: Lckv, module: str, url: str) -> None:
    code, out, error = counted(lckv, module, url)

    assert (code, out) == (2, b""), error
    assert "not take" in error or "none that redis-py takes" in error


@pytest.mark.parametrize(
    ("module", "url"),
    [
        ("psycopg", "postgresql+psycopg://u:p@127.0.0.1:1/db?sslmode=require"),
        ("redis", "redis://127.0.0.1:1?health_check_interval=5"),
        ("redis", "redis://127.0.0.1:1?cluster=true"),
    ],
)
def test_a_parameter_that_is_taken_is_not_blamed(lckv: Lckv, module: str, url: str) -> None:
    code, out, error = counted(lckv, module, url)

    assert (code, out) == (4, b""), error

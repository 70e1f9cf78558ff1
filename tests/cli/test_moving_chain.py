"""A chain of copies over every kind of target, by the command: at its end nothing is lost or changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from installed import need
from langchain_kv import BackendOptions, Kind, Record
from langchain_kv.cli.main import run
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import DataAPIServer
from langchain_kv.values.lenient import exact_numbers
from moving_values import contents, records
from redis_node import missing, running_redis
from sql_servers import running
from upstash_server import TOKEN as UPSTASH_TOKEN
from upstash_server import running_upstash

COUNT = int(os.environ.get("LCKV_TEST_COPIES", "3000"))
"""Values that go the whole way; 100,000 are copied by setting this."""

DECIMALS = [Decimal("1.00000000000000000001"), {"n": Decimal("12345678901234567.89")}, Decimal("-1E+400"), 0.1]
EXACT = Record("exact", b'[1.00000000000000000001,{"n":12345678901234567.89},-1E+400,0.1]')
"""Numbers as other clients of a Data API keep them, and no store does."""


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[list[str]]:
    """The URLs of the way there and back; the servers run."""
    need(missing("redis"))
    with ExitStack() as stack:

        def folder() -> Path:
            # Not pytest's directory, which only its owner may enter.
            made = tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True)
            return Path(stack.enter_context(made))

        redis = stack.enter_context(running_redis(folder()))
        upstash = stack.enter_context(running_upstash(stack.enter_context(running_redis(folder())).port))
        yield [
            f"sqlite:{tmp_path}/first.db",
            stack.enter_context(DataAPIServer(f"sqlite:{tmp_path}/served.db")).url,
            stack.enter_context(running("postgresql", folder())),
            redis.url,
            stack.enter_context(running("mariadb", folder())),
            f"upstash+{upstash.url}",
            f"sqlite+sqlalchemy:{tmp_path}/alchemy.db",
            f"sqlite:{tmp_path}/last.db",
        ]


@pytest.mark.slow
def test_a_chain_of_copies_over_every_target_ends_without_a_difference(
    chain: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "test-token")
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", UPSTASH_TOKEN)
    with closing(parse_url(chain[0]).open(BackendOptions("kv", "default_keyspace"))) as backend:
        backend.open()
        backend.put_many([*records(COUNT), EXACT])
        with exact_numbers():
            expected = contents(backend)
    for source, target in pairwise(chain):
        assert run(["copy", source, target, "--collection", "kv"]) == 0, target
        assert run(["diff", source, target, "--collection", "kv"]) == 0, target
        assert run(["diff", chain[0], target, "--collection", "kv"]) == 0, target

    with closing(parse_url(chain[-1]).open(BackendOptions("kv", "default_keyspace"))) as backend:
        with exact_numbers():
            assert contents(backend) == expected
    assert len(expected) == COUNT + 1
    assert expected[EXACT.key] == (Kind.JSON, DECIMALS, None)

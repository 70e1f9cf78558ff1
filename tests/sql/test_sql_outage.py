"""A server that is killed in the middle of writes: nothing acknowledged is lost, and callers are told rightly."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path

import pytest

from langchain_kv import ConnectError, KVStore, StoreError, TransportError
from langchain_kv.testing.contract import StoreFace
from sql_servers import Server, server, url_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["postgresql", "postgresql-async", "mariadb", "mariadb-async"])
def test_a_killed_server_loses_nothing_that_was_acknowledged(name: str, is_async: bool) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True) as directory,
        asyncio.Runner() as runner,
    ):
        killed = server(name, Path(directory))
        killed.start()
        try:
            store = KVStore("kv", url_of(name, killed.url))
            face = StoreFace(store, is_async, runner.run)
            acknowledged, errors = _write_until_killed(face, killed)
            assert [type(error) for error in errors if not isinstance(error, TransportError)] == []
            assert errors[-1].retryable
            with pytest.raises(ConnectError) as caught:
                face.mset([("later", 1)])
            assert caught.value.applied is False
            killed.start()
            found = face.mget(list(acknowledged))
            store.close()
        finally:
            killed.stop()
    assert len(acknowledged) > 10
    assert dict(zip(acknowledged, found, strict=True)) == acknowledged


def _write_until_killed(face: StoreFace, killed: Server) -> tuple[dict[str, int], list[StoreError]]:
    """Write keys, one after the other, until a write fails; kill the server after some of them."""
    acknowledged: dict[str, int] = {}
    errors: list[StoreError] = []
    killer = threading.Thread(target=killed.kill)
    for number in range(100_000):
        if number == 50:
            killer.start()
        try:
            face.mset([(f"k{number}", number)])
        except StoreError as error:
            errors.append(error)
            break
        acknowledged[f"k{number}"] = number
    killer.join()
    return acknowledged, errors

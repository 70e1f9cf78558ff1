"""The backend contract, on every backend of this package and on those of the tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_kv.backends.base import Backend, Damaged, Kind, Record
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.encryption import Encrypted, Encryption
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.backends.wrappers import Counted, Prefixed, Wrapper
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.testing import DataAPIServer
from langchain_kv.testing.backend_contract import BackendContract


class TestMemory(BackendContract):
    engine = MemoryEngine()

    def open(self, collection: str) -> Backend:
        return EngineBackend(self.engine, CollectionName("default_keyspace", collection))


class TestFile(BackendContract):
    engine: SQLiteEngine

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _engine(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.engine = SQLiteEngine(str(tmp_path_factory.mktemp("file") / "kv.db"))
        yield
        cls.engine.close()

    def open(self, collection: str) -> Backend:
        return EngineBackend(self.engine, CollectionName("default_keyspace", collection))


class TestHTTP(BackendContract):
    keeps_bytes_apart = False
    updates = False

    server: DataAPIServer

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with DataAPIServer() as cls.server:
            yield

    def open(self, collection: str) -> Backend:
        return DataAPIBackend(
            self.server.url, collection=collection, keyspace="default_keyspace", token=self.server.token
        )


def compressed() -> type[Wrapper]:
    """Return the wrapper that CONTRIBUTING.md shows."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "(Wrapper)" in block]
    names: dict[str, Any] = {}
    exec(example, names)
    found: type[Wrapper] = names["Compressed"]
    return found


class TestTheWrapperOfContributing(TestMemory):
    def open(self, collection: str) -> Backend:
        return compressed()(super().open(collection))

    def test_what_is_not_compressed_is_damaged(self, collection: str) -> None:
        below = super().open(collection)
        below.open()
        below.put_many([Record("a", b"1"), Record("b", b"", Kind.BYTES), Record("c", b"\x00raw", Kind.BYTES)])
        found = compressed()(below).get_many(["a", "b", "c"])
        assert all(isinstance(one, Damaged) for one in found)


class TestPrefixed(TestMemory):
    def open(self, collection: str) -> Backend:
        return Prefixed(Counted(super().open(collection)), "pre/fix%_")


class TestEncrypted(TestFile):
    def open(self, collection: str) -> Backend:
        return Encrypted(super().open(collection), Encryption({"k": bytes(32)}), collection)

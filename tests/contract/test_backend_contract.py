"""The backend contract, on every backend of this package and on those of the tests."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from langchain_kv import Backend, BackendOptions, Damaged, Encryption, Kind, Record, Wrapper
from langchain_kv.backends.encryption import Encrypted
from langchain_kv.backends.wrappers import Counted, Prefixed
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import BackendContract
from places import Place


class TestBackend(BackendContract):
    """On every place."""

    @pytest.fixture(autouse=True)
    def _lives_on(self, place: Place) -> None:
        self.place = place
        self.keeps_bytes_apart = place.name in ("memory", "sqlite")
        self.updates = not place.is_http

    @pytest.fixture
    def collection(self, place: Place) -> str:
        return place.lend()

    def open(self, collection: str) -> Backend:
        options = BackendOptions(collection, "default_keyspace", self.place.arguments.get("token"))
        return parse_url(self.place.url).open(options)


class InMemory(TestBackend):
    @pytest.fixture
    def place(self, memory_place: Place) -> Place:
        return memory_place


def compressed() -> type[Wrapper]:
    """Return the wrapper that CONTRIBUTING.md shows."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "(Wrapper)" in block]
    names: dict[str, Any] = {}
    exec(example, names)
    found: type[Wrapper] = names["Compressed"]
    return found


class TestTheWrapperOfContributing(InMemory):
    def open(self, collection: str) -> Backend:
        return compressed()(super().open(collection))

    def test_what_is_not_compressed_is_damaged(self, collection: str) -> None:
        with closing(super().open(collection)) as below:
            below.open()
            below.put_many([Record("a", b"1"), Record("b", b"", Kind.BYTES), Record("c", b"\x00raw", Kind.BYTES)])
            found = compressed()(below).get_many(["a", "b", "c"])
        assert all(isinstance(one, Damaged) for one in found)


class TestPrefixed(InMemory):
    def open(self, collection: str) -> Backend:
        return Prefixed(Counted(super().open(collection)), "pre/fix%_")


class TestEncrypted(InMemory):
    def open(self, collection: str) -> Backend:
        return Encrypted(super().open(collection), Encryption({"k": bytes(32)}), collection)

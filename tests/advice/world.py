"""What the cases of the advice work with."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from langchain_kv import KVByteStore, KVStore
from langchain_kv.cli.main import run
from langchain_kv.testing import DataAPIServer

BIG = "x" * 4_000_000


class World:
    """Places to keep values, the command, and a way to set the stage.

    Attributes:
        tmp: an empty directory, which is the working directory, too.
        patch: pytest's monkeypatch.
        server: a Data API; its token is "test-token".
    """

    def __init__(self, tmp: Path, patch: pytest.MonkeyPatch, server: DataAPIServer) -> None:
        self.tmp, self.patch, self.server = tmp, patch, server

    def kv(self, url: str = "memory:advice", collection: Any = "kv", **arguments: Any) -> None:
        """Make a store, write and read by it, close it."""
        with KVStore(collection, url, **arguments) as store:
            store.mset([("a", 1)])
            assert store.mget(["a"]) == [1]

    def http(self, **arguments: Any) -> None:
        """The same over HTTP, with all that is not given right."""
        given = {"url": self.server.url, "token": self.server.token, "deadline_s": 5, **arguments}
        self.kv(**given)

    def put(self, key: Any, value: Any, kind: Any = KVStore) -> None:
        with kind("kv", "memory:advice") as store:
            store.mset([(key, value)])

    def put_bytes(self, key: Any, value: Any) -> None:
        self.put(key, value, KVByteStore)

    def file(self, name: str, data: bytes | str = b"") -> Path:
        path = self.tmp / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def lckv(self, line: str, stdin: bytes = b"") -> str:
        """Run a command that must fail; return what it says."""
        error = io.StringIO()
        self.patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            assert run(shlex.split(line)) in (2, 3, 4)
        return error.getvalue()

    def lckv_works(self, line: str, stdin: bytes = b"") -> None:
        self.patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            assert run(shlex.split(line)) == 0


def options(**attributes: Any) -> Any:
    """An APIOptions with some attributes."""
    return SimpleNamespace(**attributes)


def named(pattern: str, message: str) -> str:
    """Return what a message tells to write."""
    found = re.search(pattern, message)
    assert found, message
    return found[1]


class Case(NamedTuple):
    """An error that gives advice, and the advice followed.

    Attributes:
        fragment: a piece of the message in the source, between two of the parts that are put in.
        wrong: raises the error, or returns what the command says.
        right: does what the message says; it works if it returns. It is given the message.
    """

    fragment: str
    wrong: Callable[[World], Any]
    right: Callable[[World, str], Any]

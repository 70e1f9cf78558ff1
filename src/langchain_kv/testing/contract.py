"""What the contracts share: one set of names for both ways of calling, a clock of the test's own, collections."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any
from uuid import uuid4

import pytest

from langchain_kv.backends.base import Page
from langchain_kv.backends.documents import found_in
from langchain_kv.engines.base import Held
from langchain_kv.errors import UnsupportedError
from langchain_kv.runtime import clock

__all__ = ["FUTURE_MS", "PAST_MS", "BaseFace", "Clock", "Contract", "Face", "Opened", "StoreFace", "values_of"]

PAST_MS, FUTURE_MS = 1, 2**45
"""Moments of expiry, in milliseconds of Unix time: one that has come, and one that no test sees."""


class BaseFace:
    """One set of names for the plain methods of an object, or for their twins with a leading ``a``.

    A method that yields answers a list of all that it yields.

    Args:
        target: the backend or the store whose methods are called.
        is_async: whether by coroutines.
        run: runs one to its end; ``asyncio.run`` gives each an event loop of its own.
    """

    def __init__(
        self, target: Any, is_async: bool, run: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run
    ) -> None:
        self.target = target
        self.is_async = is_async
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **names: Any) -> Any:
            if self.is_async:
                return self._run(_awaited(getattr(self.target, f"a{name}")(*args, **names)))
            answer = getattr(self.target, name)(*args, **names)
            return list(answer) if inspect.isgenerator(answer) else answer

        return call


async def _awaited(answer: Any) -> Any:
    return [each async for each in answer] if inspect.isasyncgen(answer) else await answer


class StoreFace(BaseFace):
    """The face of a store."""

    def keys(self, prefix: Any = None) -> list[str]:
        """Return the keys that are listed, sorted."""
        return sorted(self.yield_keys(prefix=prefix))

    def items(self, prefix: Any = None) -> list[tuple[str, Any]]:
        """Return the items that are listed, sorted by their keys."""
        return sorted(self.yield_items(prefix=prefix), key=itemgetter(0))

    def namespace(self, *labels: str) -> StoreFace:
        """Return the face of a namespace."""
        return StoreFace(self.target.namespace(*labels), self.is_async, self._run)


class Face(BaseFace):
    """The face of a backend."""

    def scan(self, prefix: str = "", *, values: bool = True) -> Page:
        """Return what a whole scan yields."""
        return [item for page in super().__getattr__("scan")(prefix, values=values) for item in page]

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that a scan lists, sorted."""
        keys = sorted(key for page in self.scan_keys(prefix) for key in page)
        assert sorted(self.scan(prefix, values=False), key=itemgetter(0)) == [(key, None) for key in keys]
        return keys

    def in_tree(self, tree: str, *, values: bool = True, holding: Held | None = None) -> Page:
        """Return what a whole scan of a namespace and of those below it yields, parsed, in the order of the keys."""
        page = [item for page in self.scan_tree(tree, values=values, holding=holding) for item in page]
        return sorted([(key, found_in(one) if type(one) is bytes else one) for key, one in page], key=itemgetter(0))


def values_of(stored: list[Any]) -> list[Any]:
    """Return the values of what is stored, None where nothing is."""
    return [None if one is None else one.value for one in stored]


Opened = Callable[..., StoreFace]
"""Opens one more store on the test's collection: of a kind, KVStore if not given, with arguments of its constructor."""


class Clock:
    """A time of the test's own, which expiry goes by.

    Attributes:
        now_s: seconds since it began.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start_ns = clock._now_ns()
        self.now_s = 0.0
        monkeypatch.setattr(clock, "_now_ns", lambda: self._start_ns + int(self.now_s * 1e9))


class Contract:
    """What the tests of both contracts stand on.

    Attributes:
        adds: whether a key can be stored only where it is absent; else UnsupportedError is expected.
        updates: whether a value can be changed in one step with reading it; else UnsupportedError is expected.
    """

    adds = True
    updates = True

    @pytest.fixture
    def collection(self) -> str:
        """The name of a collection of the test's own, which no test had before."""
        return f"contract_{uuid4().hex[:16]}"

    @pytest.fixture
    def time(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
        """The clock; it stands still unless the test moves it."""
        with monkeypatch.context() as patches:
            yield Clock(patches)

    @contextmanager
    def _supported(self, is_there: bool) -> Iterator[None]:
        if is_there:
            yield
            return
        with pytest.raises(UnsupportedError):
            yield

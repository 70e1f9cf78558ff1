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

from langchain_kv.errors import UnsupportedError
from langchain_kv.runtime import clock

__all__ = ["BaseFace", "Clock", "Contract", "Opened", "StoreFace"]


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

"""The rows: what each contender is asked to do, how it is made ready, and which answer is right."""

from __future__ import annotations

import array
import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langchain_core.embeddings import Embeddings
from langchain_core.stores import BaseStore

from benchmarks.contenders import Contender
from benchmarks.floors import BareRequests
from benchmarks.measure import Subject

__all__ = ["CALLS", "SIZES", "WORKLOADS", "Workload", "subject"]

CALLS = 20
"""One-key calls in one sample of the rows that time them; the figure is for one."""

CONCURRENT = 64

_random = random.Random(7)


def _text(length: int) -> str:
    words = "".join(_random.choices("abcdefghijklmnopqrstuvwxyz      ", k=4096))
    return (words * (length // len(words) + 1))[:length]


_TEXT = _text(1_000_000)
_VECTOR = [_random.uniform(-1, 1) for _ in range(1536)]


def _document(length: int) -> Callable[[int], Any]:
    return lambda number: {"page_content": _TEXT[: length - 60], "metadata": {"source": "book.txt", "n": number}}


def _vector(number: int) -> list[float]:
    return [number / 7, *_VECTOR[1:]]


def _vector_bytes(number: int) -> bytes:
    return array.array("f", _vector(number)).tobytes()


def _bytes(length: int) -> Callable[[int], bytes]:
    return lambda number: (b"%016d" % number) + _TEXT[: length - 16].encode()


class Size(NamedTuple):
    """What a value is, as JSON and as bytes; and how many keys a batch of "1,000" has of it."""

    json: Callable[[int], Any]
    bytes: Callable[[int], bytes]
    batch: int = 1000


SIZES = {
    "100 B": Size(_document(100), _bytes(100)),
    "1 KB": Size(_document(1000), _bytes(1000)),
    "vector": Size(_vector, _vector_bytes),
    "1 MB": Size(_document(1_000_000), _bytes(1_000_000), 20),
}


class Workload(NamedTuple):
    """One kind of work. Each function is given the contender, the value of a number, the batch size and the round.

    Attributes:
        verb: what is timed: a name of the contender's, ``a`` goes before it in async.
        arguments: of the verb.
        before: makes ready.
        right: what the verb must answer, None for nothing.
        after: checks and cleans.
        calls: how many calls of one key a sample has; 0: one call of a batch.
        at_once: those calls are concurrent (async only).
        made: makes what is timed of a contender, in place of a verb.
    """

    verb: str
    arguments: Callable[[Callable[[int], Any], int, int], Any]
    before: Callable[[Contender, Callable[[int], Any], int, int], None] = lambda *_: None
    right: Callable[[Callable[[int], Any], int, int], Any] = lambda *_: None
    after: Callable[[Contender, Callable[[int], Any], int, int], None] = lambda *_: None
    calls: int = 0
    at_once: bool = False
    made: Callable[[Contender], Callable[..., Any]] | None = None


def _pairs(value: Callable[[int], Any], n: int, start: int = 0, name: str = "k") -> list[tuple[str, Any]]:
    return [(f"{name}{number:07}", value(start + number)) for number in range(n)]


def _names(n: int, name: str = "k") -> list[str]:
    return [f"{name}{number:07}" for number in range(n)]


def _fill(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    """Have ``n`` keys there, and nothing else."""
    if number == 0:
        contender.mset(_pairs(value, n))


def _tell_existing(exists: bool) -> Callable[[Contender, Callable[[int], Any], int, int], None]:
    def before(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
        if isinstance(contender, BareRequests):  # it has to be told; a store finds out
            contender.exists = lambda key: exists
        if exists:
            _fill(contender, value, n, number)

    return before


def _checked(name: str, start: Callable[[int], int]) -> Callable[[Contender, Callable[[int], Any], int, int], None]:
    def after(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
        keys = _names(n, name)
        for position in {0, n // 2, n - 1}:
            assert contender.mget([keys[position]]) == [value(start(number) + position)], f"{keys[position]} is wrong"
        if name == "new":
            contender.mdelete(keys)

    return after


def _are_gone(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    assert contender.mget(_names(2)) == [None, None], "keys are still there"


def _put_anew(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    if isinstance(contender, BareRequests):
        contender.exists = lambda key: False
    contender.mset(_pairs(value, n))


def _half(n: int) -> list[str]:
    return [name for both in zip(_names(n // 2), _names(n // 2, "none"), strict=True) for name in both]


def _half_there(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    if isinstance(contender, BareRequests):
        contender.exists = lambda key: int(key[3:]) % 2 == 0 and number > 0
    contender.mset([(f"mix{each:07}", value(each)) for each in range(0, n, 2)])
    contender.mdelete([f"mix{each:07}" for each in range(n) if each % 2])
    if isinstance(contender, BareRequests):
        contender.exists = lambda key: int(key[3:]) % 2 == 0


def _after_new_ones(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    """Have the keys there, while the last batch was one of new keys."""
    _fill(contender, value, n, number)
    if isinstance(contender, BareRequests):
        contender.exists = lambda key: False
    contender.mset(_pairs(value, 100, number, "other"))
    contender.mdelete(_names(100, "other"))
    if isinstance(contender, BareRequests):
        contender.exists = lambda key: True


def _after_existing_ones(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    """Have the last batch be one of keys that were there, before one of new keys."""
    if isinstance(contender, BareRequests):  # it is told, and learns nothing
        contender.exists = lambda key: False
        return
    for _ in range(2):
        contender.mset(_pairs(value, 200, number, "there"))


class _Cache(BaseStore[str, bytes]):
    """A contender as the cache that CacheBackedEmbeddings takes."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._contender.mget(keys)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        self._contender.mset(key_value_pairs)

    def mdelete(self, keys: Sequence[str]) -> None:
        self._contender.mdelete(keys)

    def yield_keys(self, *, prefix: str | None = None) -> Any:
        return iter(self._contender.keys(prefix or ""))


class _Model(Embeddings):
    """Embeds in no time, so that the cache is what is timed."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [_vector(int(text[1:])) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return _vector(int(text[1:]))


def _embedding(contender: Contender) -> Callable[[list[str]], list[list[float]]]:
    from langchain_classic.embeddings import CacheBackedEmbeddings

    cached = CacheBackedEmbeddings.from_bytes_store(_Model(), _Cache(contender), key_encoder=lambda text: f"e-{text}")
    return cached.embed_documents


def _forget(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    if isinstance(contender, BareRequests):
        contender.exists = lambda key: False
    contender.mdelete([f"e-{name}" for name in _names(n)])


def _embed_once(contender: Contender, value: Callable[[int], Any], n: int, number: int) -> None:
    if number == 0:
        _forget(contender, value, n, number)
        _embedding(contender)(_names(n))


def _embeddings(before: Callable[[Contender, Callable[[int], Any], int, int], None]) -> Workload:
    return Workload(
        "embed_documents",
        lambda value, n, number: (_names(n),),
        before,
        lambda value, n, _: [_vector(each) for each in range(n)],
        made=_embedding,
    )


WORKLOADS: dict[str, Workload] = {
    "mset new": Workload(
        "mset",
        lambda value, n, number: (_pairs(value, n, number, "new"),),
        before=_tell_existing(False),
        after=_checked("new", lambda number: number),
    ),
    "mset existing": Workload(
        "mset",
        lambda value, n, number: (_pairs(value, n, number + 1),),
        before=_tell_existing(True),
        after=_checked("k", lambda number: number + 1),
    ),
    "mset existing, after new ones": Workload(
        "mset",
        lambda value, n, number: (_pairs(value, n, number + 1),),
        before=_after_new_ones,
        after=_checked("k", lambda number: number + 1),
    ),
    "mset new, after existing ones": Workload(
        "mset",
        lambda value, n, number: (_pairs(value, n, number, "new"),),
        before=_after_existing_ones,
        after=_checked("new", lambda number: number),
    ),
    "mset half": Workload(
        "mset",
        lambda value, n, number: ([(f"mix{each:07}", value(each + number + 1)) for each in range(n)],),
        before=_half_there,
        after=_checked("mix", lambda number: number + 1),
    ),
    "mget": Workload("mget", lambda value, n, number: (_names(n),), _fill, lambda value, n, _: _values(value, n)),
    "mget half": Workload(
        "mget",
        lambda value, n, number: (_half(n),),
        _fill,
        lambda value, n, _: [each for one in _values(value, n // 2) for each in (one, None)],
    ),
    "mdelete": Workload("mdelete", lambda value, n, number: (_names(n),), before=_put_anew, after=_are_gone),
    "keys": Workload("keys", lambda value, n, number: (), _fill, lambda value, n, _: set(_names(n))),
    "keys by prefix": Workload(
        "keys", lambda value, n, number: ("k00000",), _fill, lambda value, n, _: set(_names(100))
    ),
    "cached embeddings, cold": _embeddings(_forget),
    "cached embeddings, warm": _embeddings(_embed_once),
    "get one": Workload(
        "mget", lambda value, n, number: (_names(1),), _fill, lambda value, n, _: [value(0)], calls=CALLS
    ),
    "set one new": Workload(
        "mset",
        lambda value, n, number: ([(f"one{number}-{n}", value(number))],),
        before=_tell_existing(False),
        calls=CALLS,
    ),
    "set one existing": Workload(
        "mset",
        lambda value, n, number: ([("k0000000", value(n + number))],),
        before=_tell_existing(True),
        calls=CALLS,
    ),
    "get one, 64 at once": Workload(
        "mget",
        lambda value, n, number: ([f"k{n % 1000:07}"],),
        lambda contender, value, n, number: _fill(contender, value, 1000, number),
        lambda value, n, _: [value(n % 1000)],
        calls=CONCURRENT,
        at_once=True,
    ),
}


def _values(value: Callable[[int], Any], n: int) -> list[Any]:
    return [value(number) for number in range(n)]


def subject(
    name: str, contender: Contender, workload: Workload, value: Callable[[int], Any], n: int, *, is_async: bool
) -> Subject:
    """Make of a contender and a workload what can be timed."""
    verb = workload.made(contender) if workload.made else getattr(contender, ("a" if is_async else "") + workload.verb)
    prepared: dict[int, Any] = {}

    def before(number: int) -> None:
        workload.before(contender, value, n, number)
        prepared.clear()
        if workload.calls:
            prepared[number] = [workload.arguments(value, each, number) for each in range(workload.calls)]
        else:
            prepared[number] = workload.arguments(value, n, number)

    def check(number: int, result: Any) -> None:
        expected = workload.right(value, workload.calls - 1 if workload.calls else n, number)
        if expected is None:
            return
        if isinstance(expected, set):
            assert len(result) == len(expected), f"{len(result)} keys, not {len(expected)}"
            assert set(result) == expected, "other keys"
        else:
            assert _as_json(result) == expected, "a wrong answer"

    def call(number: int) -> Any:
        if not workload.calls:
            return verb(*prepared[number])
        for arguments in prepared[number]:
            result = verb(*arguments)
        return result

    async def acall(number: int) -> Any:
        if not workload.calls:
            return await verb(*prepared[number])
        if workload.at_once:
            return (await asyncio.gather(*(verb(*arguments) for arguments in prepared[number])))[-1]
        for arguments in prepared[number]:
            result = await verb(*arguments)
        return result

    def after(number: int) -> None:
        workload.after(contender, value, n, number)

    return Subject(name, before, acall if is_async else call, check, after)


def _as_json(result: Any) -> Sequence[Any]:
    return list(result)

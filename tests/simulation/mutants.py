"""Clients with one mistake each, made of the real one: what the simulation has to catch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

from langchain_kv.backends.dataapi import commands, replies
from langchain_kv.backends.dataapi.commands import Command
from langchain_kv.backends.dataapi.replies import Inserted, Page
from langchain_kv.backends.dataapi.verbs import Verbs
from langchain_kv.errors import PartialWriteError, StoreError, TransportError
from langchain_kv.stores import base as stores

__all__ = ["MUTANTS", "mutated"]

Patch = tuple[Any, str, Any]


class _Repeating(list[Any]):
    """Pairs in the place of a dict of them."""

    def __init__(self, pairs: Iterable[Any], *_: object) -> None:
        super().__init__(pairs)

    items = list[Any].copy


def _repeated_keys_are_sent() -> list[Patch]:
    return [(stores, "checked_pairs", _Repeating)]


def _changed_inserted(change: Callable[[Inserted], Inserted]) -> list[Patch]:
    read = replies.parse_inserted

    def parse_inserted(*args: Any, **kwargs: Any) -> Inserted:
        return change(read(*args, **kwargs))

    return [(replies, "parse_inserted", parse_inserted)]


def _failed_insert_is_taken_for_exists() -> list[Patch]:
    """What could not be inserted "is there already" by an earlier try of its own: nothing to do."""
    return _changed_inserted(lambda inserted: inserted._replace(again=[], failed={}))


def _existing_key_is_left_as_it_is() -> list[Patch]:
    return _changed_inserted(lambda inserted: inserted._replace(existing=[]))


def _replace_without_upsert() -> list[Patch]:
    upsert, read = commands.upsert, replies.parse_replaced

    def replace_only(record: Any) -> Command:
        command = upsert(record)
        return command._replace(body=command.body.replace(b'"upsert":true', b'"upsert":false'))

    def parse_replaced(*args: Any, **kwargs: Any) -> bool:
        try:
            return read(*args, **kwargs)
        except StoreError as error:
            if getattr(error, "code", "") == "FAILED_CONCURRENT_OPERATIONS":  # nothing matched, and no error was said
                return True
            raise

    return [(commands, "upsert", replace_only), (replies, "parse_replaced", parse_replaced)]


def _changed_write(change: Callable[[StoreError], None]) -> list[Patch]:
    """Let ``change`` see the error of a put or a delete, and raise it or not."""

    def of(verb: Any) -> Any:
        async def write(self: Verbs, *args: Any, **kwargs: Any) -> None:
            try:
                await verb(self, *args, **kwargs)
            except StoreError as error:
                change(error)

        return write

    return [(Verbs, "put", of(Verbs.put)), (Verbs, "delete", of(Verbs.delete))]


def _error_after_the_last_try_is_swallowed() -> list[Patch]:
    def swallow(error: StoreError) -> None:
        if not isinstance(error, TransportError | PartialWriteError):
            raise error

    return _changed_write(swallow)


def _unknown_is_said_to_be_unwritten() -> list[Patch]:
    def deny(error: StoreError) -> None:
        if isinstance(error, PartialWriteError):
            error.unwritten, error.unknown = error.unwritten + error.unknown, ()
        elif error.applied is None:
            error.applied = False
        raise error

    return _changed_write(deny)


def _last_chunk_is_lost() -> list[Patch]:
    split = commands.split_by_size

    def split_by_size(records: Any) -> Iterator[Any]:
        chunks = list(split(records))
        return iter(chunks[:-1] if len(chunks) > 1 else chunks)

    return [(commands, "split_by_size", split_by_size)]


def _answers_by_position() -> list[Patch]:
    """Give the documents in the order in which they came, as if each key had one."""
    get = Verbs.get

    async def by_position(self: Verbs, call: Any, keys: Sequence[str]) -> list[Any]:
        found = [document for document in await get(self, call, keys) if document is not None]
        return found + [None] * (len(keys) - len(found))

    return [(Verbs, "get", by_position)]


def _stops_at_an_empty_page() -> list[Patch]:
    read = replies.parse_page

    def parse_page(*args: Any, **kwargs: Any) -> Page:
        page = read(*args, **kwargs)
        return page if page.items else page._replace(state=None)

    return [(replies, "parse_page", parse_page)]


def _tries_once_more_after_the_call() -> list[Patch]:
    """Put again in the background what failed."""
    put = Verbs.put
    kept: list[Any] = []

    async def put_and_go_on(self: Verbs, call: Any, records: Any) -> None:
        try:
            await put(self, call, records)
        except StoreError:
            kept.append(asyncio.get_running_loop().create_task(_quietly(put(self, call, records))))
            raise

    return [(Verbs, "put", put_and_go_on)]


async def _quietly(doing: Any) -> None:
    with suppress(StoreError):
        await doing


MUTANTS: dict[str, Callable[[], list[Patch]]] = {
    "sends repeated keys": _repeated_keys_are_sent,
    "takes a failed insert for one that exists": _failed_insert_is_taken_for_exists,
    "leaves an existing key as it is": _existing_key_is_left_as_it_is,
    "replaces without upsert": _replace_without_upsert,
    "swallows the error after the last try": _error_after_the_last_try_is_swallowed,
    "says unwritten where it is unknown": _unknown_is_said_to_be_unwritten,
    "loses the last chunk": _last_chunk_is_lost,
    "answers by position": _answers_by_position,
    "stops at an empty page": _stops_at_an_empty_page,
    "goes on after the call has returned": _tries_once_more_after_the_call,
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Let the client make a mistake."""
    patches = [patch.object(*each) for each in MUTANTS[name]()]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()

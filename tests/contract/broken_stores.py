"""Stores with one fault each, and their contract's tests on them; test_contracts.py runs these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from contract.broken_backends import BackendPlace, Right, enter
from langchain_kv import InvalidKeyError, InvalidValueError, KVByteStore
from langchain_kv.testing import StoreContract


def broken(test: str) -> Callable[[type], type]:
    """Say which test must fail on a store with a class mixed in, sync and async."""

    def entered(fault: type) -> type:
        def opened(self: Any, collection: str, kind: Any, **options: Any) -> Any:
            return type(fault.__name__, (fault, kind), {})(collection, BackendPlace(Right), **options)

        enter(fault, StoreContract, {"open": opened}, "sync async", test)
        return fault

    return entered


@broken("test_last_of_duplicate_keys_wins")
class FirstWins:
    def mset(self, pairs, **options):
        super().mset(list(pairs)[::-1], **options)

    async def amset(self, pairs, **options):
        await super().amset(list(pairs)[::-1], **options)


@broken("test_a_bad_value_is_named_with_its_place_before_anything_is_stored")
class WritesPairByPair:
    def mset(self, pairs, **options):
        for pair in pairs:
            super().mset([pair], **options)

    async def amset(self, pairs, **options):
        for pair in pairs:
            await super().amset([pair], **options)


@broken("test_a_byte_store_refuses_what_is_not_bytes")
class TakesEverythingForBytes:
    def encode_value(self, value):
        return super().encode_value(str(value).encode())


@broken("test_a_bad_value_is_named_with_its_place_before_anything_is_stored")
class NamesNothing:
    def mset(self, pairs, **options):
        try:
            super().mset(pairs, **options)
        except InvalidValueError as error:
            raise type(error)("a value cannot be stored") from None

    async def amset(self, pairs, **options):
        self.mset(pairs, **options)


@broken("test_a_value_in_the_place_of_a_key_is_not_shown")
class ShowsWhatItRefuses:
    def mset(self, pairs, **options):
        try:
            super().mset(pairs, **options)
        except InvalidKeyError:
            raise InvalidKeyError(f"no key: {pairs}") from None

    async def amset(self, pairs, **options):
        self.mset(pairs, **options)


@broken("test_iterables_are_read_once")
class ReadsKeysTwice:
    def mget(self, keys):
        return super().mget(keys) if any(True for _ in keys) else []

    async def amget(self, keys):
        return await super().amget(keys) if any(True for _ in keys) else []


@broken("test_a_text_in_the_place_of_keys_is_refused")
class TakesATextForKeys:
    def mget(self, keys):
        return super().mget(list(keys))

    async def amget(self, keys):
        return await super().amget(list(keys))


@broken("test_what_is_no_pair_is_refused_and_nothing_is_stored")
class TakesAMapping:
    def mset(self, pairs, **options):
        super().mset(pairs.items() if isinstance(pairs, dict) else pairs, **options)

    async def amset(self, pairs, **options):
        self.mset(pairs, **options)


@broken("test_none_is_stored_listed_and_reads_as_missing")
class StoresNoNone:
    def mset(self, pairs, **options):
        super().mset([(key, value) for key, value in pairs if value is not None], **options)

    async def amset(self, pairs, **options):
        self.mset(pairs, **options)


@broken("test_bytes_and_what_has_them_come_back_as_bytes")
class AnswersArrays:
    def decode_value(self, value):
        decoded = super().decode_value(value)
        return bytearray(decoded) if isinstance(self, KVByteStore) and decoded is not None else decoded


@broken("test_a_prefix_that_is_no_text_is_refused")
class TakesAnyPrefix:
    def _checked_prefix(self, prefix):
        return prefix if isinstance(prefix, str) else ""


@broken("test_a_bad_key_is_refused_before_anything_is_stored")
class CutsLongKeys:
    def mget(self, keys):
        return super().mget([key[:8_000] if isinstance(key, str) else key for key in keys])

    async def amget(self, keys):
        return self.mget(keys)


@broken("test_keys_of_the_greatest_length_work")
class RefusesLongKeys:
    def mset(self, pairs, **options):
        if any(len(key.encode()) > 1_000 for key, _ in pairs):
            raise InvalidKeyError("too long")
        super().mset(pairs, **options)

    async def amset(self, pairs, **options):
        self.mset(pairs, **options)


@broken("test_a_call_has_its_own_time_or_the_stores")
class HasNoTimeOfItsOwn:
    def __init__(self, *arguments, ttl_s=None, **options):
        super().__init__(*arguments, **options)


@broken("test_namespaces_keep_apart")
class LooksAtTheFirstLabel:
    def namespace(self, *labels):
        return super().namespace(labels[0])


@broken("test_namespaces_are_listed_sorted_and_once")
class JoinsLabels:
    def namespace(self, *labels):
        return super().namespace("/".join(labels))


@broken("test_namespaces_nest")
class ForgetsItsOwnLabels:
    def namespace(self, *labels):
        self.root = getattr(self, "root", self)
        return super(ForgetsItsOwnLabels, self.root).namespace(*labels)


@broken("test_a_namespace_closes_nothing_else_and_ends_with_its_parent")
class ClosesItsParent:
    def close(self):
        self._connection.is_closed = True
        super().close()

    async def aclose(self):
        self.close()


@broken("test_a_closed_store_says_so")
class ListsWhenClosed:
    def yield_keys(self, *, prefix=None):
        return super().yield_keys(prefix=prefix) if not self._closed else iter(())

    async def ayield_keys(self, *, prefix=None):
        for key in self.yield_keys(prefix=prefix):
            yield key


@broken("test_a_store_is_a_context_manager_both_ways")
class StaysOpenAfterWith:
    async def __aexit__(self, *_):
        pass


@broken("test_a_copy_lives_and_closes_apart")
class IsItsOwnCopy:
    def __deepcopy__(self, memo):
        return self


@broken("test_an_abandoned_listing_is_no_trouble")
class EndsWithAListing:
    def yield_keys(self, *, prefix=None):
        try:
            yield from super().yield_keys(prefix=prefix)
        except GeneratorExit:
            self.close()


@broken("test_a_plain_call_works_in_a_running_loop")
class RunsALoopOfItsOwn:
    def mget(self, keys):
        coroutine = super().amget(keys)
        try:
            return asyncio.run(coroutine)
        finally:
            coroutine.close()


@broken("test_empty_batches_do_nothing")
class ClearsByAnEmptyBatch:
    def mdelete(self, keys):
        return super().mdelete(keys) if keys else 0

    async def amdelete(self, keys):
        return self.mdelete(keys)


@broken("test_threads_share_a_store_with_a_loop_each_or_none")
class HasOneCallAtATime:
    busy = 0

    async def amset(self, pairs, **options):
        self.busy += 1
        try:
            if self.busy > 1:
                raise RuntimeError("busy")
            await super().amset(pairs, **options)
        finally:
            self.busy -= 1

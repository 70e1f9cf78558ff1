"""Backends with one fault each, and the contracts' tests on them and on their stores; test_contracts.py runs these."""

from __future__ import annotations

import asyncio
import re
import sys
import unicodedata
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any, ClassVar
from unittest import mock

import orjson
from msgspec.structs import replace

from langchain_kv import Kind, Place, Record, SyncBackend
from langchain_kv.backends.base import Merge
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.runtime import clock
from langchain_kv.testing import BackendContract, StoreContract

ENGINE = MemoryEngine()

MUST_FAIL: dict[str, tuple[str, str, str]] = {}
"""Of each class of tests here: its file, the modes in which a test of it must fail, and that test."""


def name_of(collection: str) -> CollectionName:
    return CollectionName("default_keyspace", collection)


class Right(SyncBackend):
    """No fault; what is below is proven elsewhere."""

    can_update = True

    def __init__(self, collection: str) -> None:
        self.below = EngineBackend(ENGINE, name_of(collection))

    def get_many(self, keys):
        return self.below.get_many(keys)

    def put_many(self, records):
        self.below.put_many(records)

    def delete_many(self, keys):
        self.below.delete_many(keys)

    def scan(self, prefix, *, values):
        yield from self.below.scan(prefix, values=values)

    def add_many(self, records):
        return self.below.add_many(records)

    def update(self, key, change):
        self.below.update(key, change)

    def touch_many(self, keys, expires_at_ms):
        self.below.touch_many(keys, expires_at_ms)

    def purge(self):
        return self.below.purge()

    def open(self, *, clear=False):
        self.below.open(clear=clear)

    def close(self):
        self.below.close()
        super().close()


class BackendPlace(Place):
    """A place of backends of a class."""

    shown = "broken:"

    def __init__(self, backend: Callable[[str], Right]) -> None:
        self.backend = backend

    def open(self, options):
        return self.backend(options.collection)


def broken(*, backend: str = "", store: str = "", modes: str = "sync async") -> Callable[[type], type]:
    """Say which test of each contract must fail on a class of backends, and in which modes."""

    def entered(fault: type) -> type:
        def opened(self: Any, collection: str, kind: Any, **options: Any) -> Any:
            return kind(collection, BackendPlace(fault), **options)

        tests = {"open": lambda self, collection: fault(collection)}
        enter(fault, BackendContract, tests, modes, backend)
        tests = {"open": opened, "peek": lambda self, collection: ENGINE.scan_ids(name_of(collection), limit=10_000)}
        enter(fault, StoreContract, tests, modes, store)
        return fault

    return entered


def enter(fault: type, contract: type, methods: dict[str, Any], modes: str, test: str) -> None:
    """Have a class of tests, with a name of its own, in the module of the fault."""
    name = f"Test{fault.__name__}As{contract.__name__}"
    if test or fault is Right:
        module = sys.modules[fault.__module__]
        setattr(module, name, type(name, (contract,), methods))
        MUST_FAIL[name] = (str(module.__file__), modes, test)


broken()(Right)


@broken(backend="test_batches_may_have_any_size", store="test_batches_of_any_size")
class LosesAllAfterAHundred(Right):
    def put_many(self, records):
        super().put_many(records[:100])


@broken(backend="test_batches_may_have_any_size", store="test_batches_of_any_size")
class RemovesAHundred(Right):
    def delete_many(self, keys):
        super().delete_many(keys[:100])


@broken(backend="test_missing_keys_are_no_error_to_remove", store="test_deleting_twice_and_missing_keys_is_fine")
class MissesMissingKeys(Right):
    def delete_many(self, keys):
        if None in self.get_many(keys):
            raise LookupError("missing")
        super().delete_many(keys)


@broken(store="test_nothing_is_kept_of_what_was_deleted")
class OnlyHidesWhatIsRemoved(Right):
    def delete_many(self, keys):
        super().put_many([Record(f"removed {key}", b"null") for key in keys])
        super().delete_many(keys)

    def scan(self, prefix, *, values):
        for page in super().scan(prefix, values=values):
            yield [(key, stored) for key, stored in page if not key.startswith("removed ")]


@broken(backend="test_batches_may_have_any_size", store="test_batches_of_any_size")
class ListsPagesTwice(Right):
    def scan(self, prefix, *, values):
        for page in super().scan(prefix, values=values):
            yield page
            yield page


@broken(backend="test_batches_may_have_any_size", store="test_batches_of_any_size")
class ListsOnePage(Right):
    def scan(self, prefix, *, values):
        for page in super().scan(prefix, values=values):
            yield page[:100]
            return


@broken(backend="test_keys_that_stay_are_listed_once_while_others_change")
class PagesByNumber(Right):
    def scan(self, prefix, *, values):
        start = 0
        while page := [item for part in self.below.scan(prefix, values=values) for item in part][start:][:100]:
            yield page
            start += len(page)


@broken(backend="test_a_scan_goes_on_behind_a_key_where_keys_have_an_order")
class GoesOnFromTheBeginning(Right):
    in_key_order = True

    def scan_after(self, prefix, after):
        yield from self.below.scan(prefix, values=True)


@broken(backend="test_a_namespace_is_listed_with_those_below_it_and_no_other")
class ListsNamespacesThatBeginAlike(Right):
    def scan_tree(self, tree, *, values, holding=None):
        return self.scan(tree, values=values)

    def ascan_tree(self, tree, *, values, holding=None):
        return self.ascan(tree, values=values)


@broken(backend="test_a_namespace_is_listed_with_those_below_it_and_no_other", modes="async")
class CoroutinesListNoneBelow(Right):
    async def ascan_tree(self, tree, *, values, holding=None):
        async for page in super().ascan_tree(tree, values=values):
            yield [(key, one) for key, one in page if key.startswith(f"{tree}\x1e")]


@broken(backend="test_a_scan_for_what_holds_a_text_leaves_none_of_it_out")
class LooksForATextAtTheTopOnly(Right):
    def scan_tree(self, tree, *, values, holding=None):
        for page in super().scan_tree(tree, values=values):
            yield [(key, one) for key, one in page if holding is None or f'"{one.value}'.startswith(holding.text)]

    async def ascan_tree(self, tree, *, values, holding=None):
        for page in self.scan_tree(tree, values=values, holding=holding):
            yield page


@broken(backend="test_the_namespaces_are_those_that_keys_are_in")
class NamesOneLevelOfNamespaces(Right):
    def namespaces(self, tree):
        return {name for name in super().namespaces(tree) if name.count("\x1f") <= tree.count("\x1f") + 1}

    async def anamespaces(self, tree):
        return self.namespaces(tree)


@broken(backend="test_what_has_expired_is_in_no_namespace")
class NamesNamespacesOfWhatHasExpired(Right):
    def namespaces(self, tree):
        with at_the_beginning_of_time():
            return super().namespaces(tree)

    async def anamespaces(self, tree):
        return self.namespaces(tree)


@broken(backend="test_bytes_are_read_as_bytes_if_only_copies_wrote_them")
class MakesNoDifferenceOfMarkedBytes(Right):
    keeps_bytes = False

    def put_many(self, records):
        super().put_many(
            [
                replace(record, payload=b'"%b"' % b64encode(record.payload), kind=Kind.JSON)
                if record.kind is Kind.MARKED_BYTES
                else record
                for record in records
            ]
        )


@broken(backend="test_answers_come_in_the_order_of_the_keys", store="test_order_and_repeats_of_mget_are_kept")
class AnswersInItsOwnOrder(Right):
    def get_many(self, keys):
        return super().get_many(sorted(keys))


@broken(backend="test_what_is_skimmed_is_what_is_read")
class SkimsWhatHasExpired(Right):
    def skim_many(self, keys):
        return [found or b'{"_id":"x","value":1}' for found in self.get_many(keys)]

    async def askim_many(self, keys):
        return self.skim_many(keys)


@broken(backend="test_any_text_is_a_key_and_a_literal_prefix", store="test_any_text_is_a_key_and_a_literal_prefix")
class TakesPrefixesForPatterns(Right):
    def scan(self, prefix, *, values):
        pattern = re.compile(re.escape(prefix).replace("%", ".*").replace("_", "."), re.DOTALL)
        for page in super().scan("", values=values):
            yield [(key, stored) for key, stored in page if pattern.match(key)]


@broken(backend="test_any_text_is_a_key_and_a_literal_prefix", store="test_any_text_is_a_key_and_a_literal_prefix")
class NormalizesKeys(Right):
    def get_many(self, keys):
        return super().get_many([unicodedata.normalize("NFC", key) for key in keys])

    def put_many(self, records):
        super().put_many([replace(record, key=unicodedata.normalize("NFC", record.key)) for record in records])


@broken(backend="test_both_ways_of_calling_see_the_same", store="test_what_is_written_one_way_is_read_the_other")
class CoroutinesWriteElsewhere(Right):
    async def aput_many(self, records):
        pass


@broken(
    backend="test_any_text_is_a_key_and_a_literal_prefix",
    store="test_any_text_is_a_key_and_a_literal_prefix",
    modes="async",
)
class CoroutinesListEverything(Right):
    async def ascan(self, prefix, *, values):
        async for page in super().ascan("", values=values):
            yield page


@broken(backend="test_threads_may_share_it", store="test_event_loops_may_follow_each_other")
class BelongsToOneLoop(Right):
    loop = None

    async def aput_many(self, records):
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        await super().aput_many(records)


@broken(backend="test_every_kind_of_record_comes_back", store="test_bytes_and_what_has_them_come_back_as_bytes")
class EndsBytesAtZero(Right):
    def put_many(self, records):
        super().put_many(
            [
                replace(each, payload=each.payload.split(b"\0")[0]) if each.kind is Kind.BYTES else each
                for each in records
            ]
        )


@broken(backend="test_every_kind_of_record_comes_back", store="test_any_json_value_comes_back")
class MakesFloatsOfIntegers(Right):
    def get_many(self, keys):
        found = super().get_many(keys)
        return [one if one is None or type(one.value) is not int else floated(one) for one in found]


def floated(found):
    with suppress(OverflowError):
        found.value = float(found.value)
    return found


@broken(backend="test_what_exists_is_replaced_whole", store="test_writing_anew_takes_the_moment_away")
class KeepsTheOldMoment(Right):
    def put_many(self, records):
        old = super().get_many([record.key for record in records])
        super().put_many(
            [
                replace(record, expires_at_ms=record.expires_at_ms or (was and was.expires_at_ms))
                for record, was in zip(records, old, strict=True)
            ]
        )


def at_the_beginning_of_time() -> Any:
    return mock.patch.object(clock, "_now_ns", return_value=0)


@broken(
    backend="test_expiry_comes_with_the_clock",
    store="test_what_has_expired_is_neither_served_nor_listed",
)
class ServesWhatHasExpired(Right):
    def get_many(self, keys):
        with at_the_beginning_of_time():
            return super().get_many(keys)


@broken(
    backend="test_expiry_comes_with_the_clock",
    store="test_what_has_expired_is_neither_served_nor_listed",
)
class ListsWhatHasExpired(Right):
    def scan(self, prefix, *, values):
        with at_the_beginning_of_time():
            pages = list(super().scan(prefix, values=values))
        yield from pages


@broken(
    backend="test_what_has_expired_is_neither_served_nor_listed",
    store="test_a_call_has_its_own_time_or_the_stores",
)
class ListsNothingThatExpires(Right):
    def scan(self, prefix, *, values):
        for page in super().scan(prefix, values=True):
            yield [(key, one if values else None) for key, one in page if one.expires_at_ms is None]


@broken(backend="test_expiry_comes_with_the_clock", store="test_bytes_expire_too")
class KeepsBytesForEver(Right):
    def put_many(self, records):
        super().put_many([replace(each, expires_at_ms=None) if each.kind is Kind.BYTES else each for each in records])


@broken(backend="test_purging_removes_what_has_expired_only", store="test_purging_removes_what_has_expired")
class PurgesNothing(Right):
    def purge(self):
        return 0


@broken(store="test_purging_removes_what_has_expired")
class OnlySaysThatItPurges(Right):
    def purge(self):
        with at_the_beginning_of_time():
            everything = self.below.count("")
        return everything - self.below.count("")


@broken(backend="test_adding_stores_what_is_absent_and_says_what_was", store="test_only_what_is_absent_is_added")
class AddsWhatIsThere(Right):
    def add_many(self, records):
        self.put_many(records)
        return [True] * len(records)


@broken(store="test_what_is_added_expires")
class AddsForEver(Right):
    def add_many(self, records):
        return super().add_many([replace(record, expires_at_ms=None) for record in records])


BOTH = Barrier(2)


def wait_for_another() -> None:
    """Let two threads meet here, if there are two."""
    with suppress(BrokenBarrierError):
        BOTH.wait(0.1)
    if BOTH.broken:
        BOTH.reset()


@broken(backend="test_of_many_who_add_one_key_one_wins", store="test_of_sixteen_who_add_one_key_one_wins")
class AddsInTwoSteps(Right):
    def add_many(self, records):
        absent = [found is None for found in self.get_many([record.key for record in records])]
        wait_for_another()
        self.put_many([record for record, is_absent in zip(records, absent, strict=True) if is_absent])
        return absent

    async def aadd_many(self, records):
        return await asyncio.to_thread(self.add_many, records)


@broken(backend="test_no_update_is_lost", store="test_no_update_is_lost")
class UpdatesInTwoSteps(Right):
    def update(self, key, change):
        (found,) = self.get_many([key])
        wait_for_another()
        self.put_many([change(found)])

    async def aupdate(self, key, change):
        await asyncio.to_thread(self.update, key, change)


@broken(backend="test_no_merge_is_lost")
class MergesInTwoSteps(Right):
    def merge_many(self, records, merge):
        found = self.get_many([record.key for record in records])
        wait_for_another()
        self.put_many(
            [record if one is None else merge(record, one) for record, one in zip(records, found, strict=True)]
        )

    async def amerge_many(self, records, merge):
        await asyncio.to_thread(self.merge_many, records, merge)


@broken(backend="test_merging_stores_what_is_absent_and_merges_the_rest")
class ReplacesInsteadOfMerging(Right):
    def merge_many(self, records, merge):
        self.put_many(records)


@broken(backend="test_merging_by_an_ending_is_merging")
class KeepsWhateverStandsAtTheEnd(Right):
    def merge_many(self, records, merge):
        def at_the_end(record, stored):
            there = orjson.dumps(stored.value) if stored.kind is Kind.JSON else stored.value
            return replace(record, payload=merge.ending.with_text(record.payload, there[-4:-2]))

        self.below.merge_many(records, merge if merge.ending is None else Merge(at_the_end))


@broken(backend="test_keys_are_ranked_by_their_endings_or_not_at_all")
class RanksInTheOrderOfKeys(Right):
    def keys_by_ending(self, tree, ending, limit):
        keys = sorted(key for page in self.scan_tree(tree, values=False) for key, _ in page)
        return keys if limit is None else keys[:limit]

    async def akeys_by_ending(self, tree, ending, limit):
        return self.keys_by_ending(tree, ending, limit)


@broken(backend="test_what_has_no_ending_is_merged_beside_what_has")
class ForgetsMomentsWhereEndingsAreKept(Right):
    def merge_many(self, records, merge):
        given = records if merge.ending is None else [replace(record, expires_at_ms=None) for record in records]
        self.below.merge_many(given, merge)


@broken(backend="test_an_update_sees_what_is_there", store="test_an_update_sees_and_changes_the_value")
class NeverRemovesByUpdate(Right):
    def update(self, key, change):
        super().update(key, lambda found: change(found) or (found and Record(key, b"0")))


@broken(backend="test_what_an_update_raises_changes_nothing", store="test_what_an_update_raises_changes_nothing")
class RemovesWhereAnUpdateRaises(Right):
    def update(self, key, change):
        try:
            super().update(key, change)
        except ZeroDivisionError:
            self.delete_many([key])
            raise


@broken(store="test_an_update_keeps_the_moment_unless_another_is_given")
class UpdatesForEver(Right):
    def update(self, key, change):
        super().update(key, lambda found: replace(change(found), expires_at_ms=None))


@broken(backend="test_touching_moves_moments_of_expiry_away_only")
class TouchesForEver(Right):
    def touch_many(self, keys, expires_at_ms):
        super().touch_many(keys, 2**50)


@broken(store="test_reading_starts_the_time_anew")
class TouchesNothing(Right):
    def touch_many(self, keys, expires_at_ms):
        pass


@broken(backend="test_clearing_a_prefix_leaves_the_rest", store="test_keys_are_counted_and_cleared_by_prefix")
class ClearsEverything(Right):
    def clear(self, prefix):
        super().clear("")


@broken(backend="test_batches_may_have_any_size", store="test_keys_are_counted_and_cleared_by_prefix")
class CountsEverything(Right):
    def count(self, prefix):
        return super().count("")

    async def acount(self, prefix):
        return await super().acount("")


@broken(
    backend="test_a_record_that_cannot_be_kept_is_named_and_nothing_is_lost",
    store="test_a_value_that_is_too_large_is_named_and_nothing_is_lost",
)
class StoresAPartOfWhatItRefuses(Right):
    def put_many(self, records):
        for record in records:
            super().put_many([record])


@broken(
    backend="test_opening_again_keeps_records_unless_they_are_to_be_cleared",
    store="test_another_store_sees_the_values_that_are_there",
)
class ClearsWhenItOpens(Right):
    def open(self, *, clear=False):
        super().open(clear=True)


@broken(
    backend="test_opening_again_keeps_records_unless_they_are_to_be_cleared",
    store="test_pre_delete_empties_the_collection_first",
)
class NeverClears(Right):
    def open(self, *, clear=False):
        super().open()


@broken(backend="test_closing_ends_it_for_good", modes="sync")
class StaysOpen(Right):
    def close(self):
        SyncBackend.close(self)


@broken(backend="test_closing_ends_it_for_good", store="test_closing_one_store_leaves_another_alone")
class ClosesTheOthers(Right):
    opened: ClassVar = defaultdict(list)

    def __init__(self, collection):
        super().__init__(collection)
        self.all = self.opened[collection]
        self.all.append(self.below)

    def close(self):
        for each in self.all:
            each.close()
        super().close()

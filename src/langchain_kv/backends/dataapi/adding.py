"""Adding: inserts of what is absent, which say what was added, and of what that cannot be known."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_kv.backends.dataapi import commands
from langchain_kv.backends.dataapi.flow import CHUNKS_AT_ONCE, each
from langchain_kv.backends.dataapi.outcome import BatchOutcome
from langchain_kv.backends.dataapi.retry import Call
from langchain_kv.backends.dataapi.verbs import INSERT_WIDTH, Verbs
from langchain_kv.backends.documents import Encoded
from langchain_kv.errors import StoreError
from langchain_kv.runtime.slices import gathered, in_slices

__all__ = ["add"]


async def add(verbs: Verbs, call: Call, records: Sequence[Encoded]) -> list[bool]:
    """Insert each record whose key is absent, or has expired; return which were.

    Raises:
        PartialWriteError: some failed, or an answer was lost and the key was there when it was asked again: who
            stored it cannot be known.
    """
    outcome, _ = BatchOutcome.of(call, [key for key, _ in records])
    # Where the call is run again with another token, what was added stays so.
    left = [record for record in records if record[0] not in outcome.added and record[0] not in outcome.there]
    await _insert(verbs, call, left, outcome)
    await in_slices(outcome.settle("added"))
    there = sorted(outcome.there)
    try:
        expired = {*await verbs.expired(call, there)}
        if expired:
            await verbs.remove(call, sorted(expired), BatchOutcome(sorted(expired)))
    except StoreError as error:
        error.applied = False  # to the keys that were there; the others are added
        outcome.fail(there, error)
        await in_slices(outcome.settle("added"))
        raise
    if expired:
        outcome.there -= expired
        await _insert(verbs, call, [record for record in records if record[0] in expired], outcome)
        await in_slices(outcome.settle("added"))
    return [key in outcome.added for key, _ in records]


async def _insert(verbs: Verbs, call: Call, records: Sequence[Encoded], outcome: BatchOutcome) -> None:
    async def insert(chunk: Sequence[Encoded]) -> None:
        inserted = await verbs.insert_chunk(call, chunk, outcome, must_go_on=True)
        if inserted is None:
            return
        outcome.find_there(inserted.existing)
        again = {*inserted.again}
        outcome.added.update({key for key, _ in chunk} - again - {*inserted.existing} - inserted.failed.keys())
        if again:
            await insert([record for record in chunk if record[0] in again])

    runs = await in_slices(gathered(commands.split_by_size(records), CHUNKS_AT_ONCE))
    await each(insert, runs, INSERT_WIDTH)

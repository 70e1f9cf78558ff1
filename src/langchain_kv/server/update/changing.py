"""Changing documents that were found: each in one step with seeing that it still matches, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import KEEP, DocId, Keep
from langchain_kv.engines.rows import of_documents
from langchain_kv.errors import DataAPIError
from langchain_kv.server.commands.reply import document_data
from langchain_kv.server.pacing import LARGE_BYTES, Turns, do
from langchain_kv.server.query.searching import Document, Search, first_document, open_search

__all__ = ["Act", "Changed", "Make", "change_all", "change_one", "change_status", "changed_document"]

_ATTEMPTS: Final = 4
"""How often a document is looked for anew when another writer was faster (the Data API's own number)."""


class Changed(NamedTuple):
    """What becomes of a document.

    Attributes:
        before: the document that matched, or None where one is inserted.
        after: the document that is to be stored, or None where it is deleted.
        is_modified: whether the Data API would call it modified.
        new_id: the id of ``after``; None where it cannot have changed.
        upserted: the ``_id`` of the document that is inserted, where one is.
    """

    before: bytes | None
    after: bytes | None
    is_modified: bool = False
    new_id: DocId | None = None
    upserted: tuple[Any, ...] = ()


Act = Callable[[bytes], Changed]
"""Sees a document that matches, and says what becomes of it; it may be called more than once."""

Make = Callable[[], Changed]
"""Makes the document that an upsert inserts; it may be called more than once."""


async def change_one(search: Search, act: Act, make: Make | None = None) -> Changed | None:
    """Change the first document that matches; where none does, insert what ``make`` makes.

    Args:
        search: what to look for.
        act: what to do.
        make: what to insert; None inserts nothing.

    Returns:
        What was done, or None where nothing matched and nothing was inserted.

    Raises:
        DataAPIError: FAILED_CONCURRENT_OPERATIONS where other writers were faster four times in a row,
            DOCUMENT_ALREADY_EXISTS where the new document's id is that of one that does not match.
    """
    only_id = search.condition.only_id
    clash: DocId | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            search = await open_search(search.request)
        found = None if only_id is not None else await first_document(search)
        if found is not None:
            outcome = (await change_all(search, [found], act))[found[0]]
        elif only_id is not None:
            outcome = await _change_or_insert(search, only_id, act, make)
            if outcome is None:
                return None
        elif make is not None:
            outcome = make()
        else:
            return None
        if outcome is not None and outcome.before is None and not await _insert(search, outcome, only_id):
            clash, outcome = outcome.new_id, None
        if outcome is not None:
            return outcome
    if clash is not None:
        raise DataAPIError.of(
            "DOCUMENT_ALREADY_EXISTS",
            "No document matches, and the '_id' of the one to insert is already another's: widen the filter, or leave"
            " the '_id' out.",
        )
    raise _too_many_writers()


async def _change_or_insert(search: Search, target: DocId, act: Act, make: Make | None) -> Changed | None:
    """Change the document of an id if it matches, or insert it there; one whose id is to be another is only made."""

    def decide(body: bytes | None) -> Changed | None:
        if body is None:
            return make() if make is not None else None
        return act(body) if search.condition.matches(body) else None

    def stored(outcome: Changed, document_id: DocId) -> bytes | Keep | None:
        is_elsewhere = outcome.before is None and outcome.new_id != document_id
        return KEEP if is_elsewhere else _stored(outcome, document_id)

    seen = search.found[0][1] if search.found else None
    prepared = await do(len(seen or b""), decide, seen)
    if prepared is None:
        return None
    plan = {target: _Prepared(seen, prepared)}
    return (await _carry_out(search, plan, decide, stored))[target]


async def _insert(search: Search, outcome: Changed, only_id: DocId | None) -> bool:
    """Insert a document that was made, unless that was done already; return whether it is there."""
    if outcome.new_id is None or outcome.new_id == only_id:
        return True
    inserted: list[bool] = []

    def change(_: DocId, body: bytes | None) -> bytes | Keep | None:
        inserted[:] = [body is None]
        return KEEP if body is not None else outcome.after

    await search.request.engine.amodify(search.collection.name, [outcome.new_id], of_documents(change))
    return inserted[0]


async def change_all(search: Search, found: Sequence[Document], act: Act) -> dict[DocId, Changed | None]:
    """Change documents that were found by one ``modify`` of the engine: all or none, if it has ``atomic_batches``.

    What becomes of each is worked out before, and inside of that only where another writer came in between.

    Args:
        search: where they were found.
        found: the documents.
        act: what to do; what it raises is raised, and nothing is changed.

    Returns:
        What was done, by id, in the order of ``found``; None for a document that no longer matches.
    """

    def decide(body: bytes | None) -> Changed | None:
        return act(body) if body is not None and search.condition.matches(body) else None

    turns = Turns()
    plan = {
        document_id: _Prepared(body, act(body) if turns.is_mine(len(body)) else await turns.do(len(body), act, body))
        for document_id, body in found
    }
    return await _carry_out(search, plan, decide, _stored)


class _Prepared(NamedTuple):
    """A document as it was seen, and what becomes of it."""

    seen: bytes | None
    outcome: Changed | None


class _OvertakenError(Exception):
    """Another writer changed a large document, and what becomes of it would take too long in the middle of a write."""

    def __init__(self, document_id: DocId, body: bytes) -> None:
        super().__init__()
        self.document_id, self.body = document_id, body


async def _carry_out(
    search: Search,
    plan: dict[DocId, _Prepared],
    decide: Callable[[bytes | None], Changed | None],
    stored: Callable[[Changed, DocId], bytes | Keep | None],
) -> dict[DocId, Changed | None]:
    """Change documents as they were prepared; where another writer came in between, decide anew."""
    outcomes: dict[DocId, Changed | None] = {}

    def change(document_id: DocId, body: bytes | None) -> bytes | Keep | None:
        seen, outcome = plan[document_id]
        if body != seen:
            # Of several, an engine without atomic_batches may have changed others already.
            if len(plan) == 1 and body is not None and len(body) > LARGE_BYTES:
                raise _OvertakenError(document_id, body)
            outcome = decide(body)
        outcomes[document_id] = outcome
        return KEEP if outcome is None else stored(outcome, document_id)

    for _ in range(_ATTEMPTS):
        try:
            await search.request.engine.amodify(search.collection.name, list(plan), of_documents(change))
        except _OvertakenError as overtaken:
            body = overtaken.body
            plan[overtaken.document_id] = _Prepared(body, await do(len(body), decide, body))
        else:
            return outcomes
    raise _too_many_writers()


def _too_many_writers() -> DataAPIError:
    return DataAPIError.of(
        "FAILED_CONCURRENT_OPERATIONS", f"Other writers changed the document {_ATTEMPTS} times in a row: try again."
    )


def _stored(outcome: Changed, document_id: DocId) -> bytes | Keep | None:
    if outcome.new_id not in (None, document_id):
        raise DataAPIError.of(
            "UNSUPPORTED_UPDATE_OPERATOR_FOR_DOC_ID", "The command would change the '_id' of a document: it cannot."
        )
    return KEEP if outcome.after == outcome.before else outcome.after


def change_status(outcomes: Iterable[Changed | None]) -> dict[str, Any]:
    """Return the ``status`` of documents that were updated, replaced or inserted."""
    done = [outcome for outcome in outcomes if outcome is not None]
    status: dict[str, Any] = {}
    for outcome in done:
        if outcome.upserted:
            status["upsertedId"] = outcome.upserted[0]
    status["matchedCount"] = sum(outcome.before is not None for outcome in done)
    status["modifiedCount"] = sum(outcome.is_modified for outcome in done)
    return status


async def changed_document(search: Search, outcome: Changed | None, *, after: bool) -> bytes:
    """Return the ``data`` of a document that was changed: as it is now, or as it was."""
    body = None if outcome is None else outcome.after if after else outcome.before
    return document_data(None if body is None else await do(len(body), search.projection.apply, body))

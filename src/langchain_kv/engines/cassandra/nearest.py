"""The documents nearest to a vector: by the index of vectors, or beyond its reach by going through the whole table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from langchain_kv.engines.base import DocId, NearRow, Row, Where
from langchain_kv.engines.cassandra.operation import Operation
from langchain_kv.engines.cassandra.rows import doc_id_of
from langchain_kv.engines.cassandra.scan import Listed, Scan
from langchain_kv.engines.cassandra.shredding import containing
from langchain_kv.engines.cassandra.vectors import ANN_MAX
from langchain_kv.engines.cassandra.work import good_bodies, read_rows, reading, rows_by_id
from langchain_kv.engines.pages import PAGE_DOCUMENTS
from langchain_kv.engines.rows import row_of

__all__ = ["nearest", "similar"]

Named = tuple[DocId, float]

GROWTH: Final = 4
"""How many times as many rows are asked for as are wanted, and again where that left too few."""


async def nearest(
    operation: Operation, vector: Sequence[float], *, limit: int, where: Where | None, listed: Listed | None
) -> list[NearRow]:
    """Return the rows nearest to a vector, the nearest first, then by id; fewer than ``limit`` where there are no more.

    They are those that the index names: nearly all of the nearest. Where its ANN_MAX are not enough, all rows that may
    be wanted are read, and then they are exact. Documents are read as every read reads them, once it is known which:
    what was acknowledged is what is answered, whatever one replica's index still has.

    Args:
        operation: what this is part of, on a collection that has vectors.
        vector: as ``looked_for`` returns it.
        limit: at most this many.
        where: only rows that it holds for; None: all.
        listed: a field and a text that all wanted rows have (see Scan), by which the index is asked; None without.
    """
    tested: dict[DocId, NearRow | None] = {}
    asked = limit if where is None else min(ANN_MAX, GROWTH * limit)
    while 0 < asked <= ANN_MAX:
        named, is_all = await _named(operation, vector, asked, listed)
        found = await _wanted(operation, named, limit, where, tested)
        if len(found) == limit or is_all:
            return found
        asked = max(asked + 1, min(ANN_MAX, GROWTH * asked))
    return await _looked_through(operation, vector, limit, where, listed)


async def similar(
    operation: Operation, vector: Sequence[float], ids: Iterable[DocId], *, limit: int, where: Where | None
) -> list[NearRow]:
    """As ``nearest``, of the rows of some ids."""
    rows = await rows_by_id(operation, dict.fromkeys(ids), "similar", vector)
    named = _in_order([(doc_id, row[1]) for doc_id, row in rows.items()])
    return await _wanted(operation, named, limit, where, {})


async def _named(
    operation: Operation, vector: Sequence[float], asked: int, listed: Listed | None
) -> tuple[list[Named], bool]:
    """Return what the index names, and whether that is all there is."""
    statement = await operation.statement("nearest" if listed is None else "nearest_of")
    entry = () if listed is None else (containing(*listed),)
    (rows,) = await reading(operation, [(statement, (vector, *entry, vector, asked))], 1, "nearest")
    return _in_order([(doc_id_of(key), similarity) for key, similarity in rows]), len(rows) < asked


async def _wanted(
    operation: Operation,
    named: Sequence[Named],
    limit: int,
    where: Where | None,
    tested: dict[DocId, NearRow | None],
) -> list[NearRow]:
    """Return the first ``limit`` rows that are there and wanted; ``tested`` has what became of those of before."""
    found: list[NearRow] = []
    for start in range(0, len(named), PAGE_DOCUMENTS):
        page = named[start : start + PAGE_DOCUMENTS]
        new = [doc_id for doc_id, _ in page if doc_id not in tested]
        bodies = dict(zip(new, good_bodies(new, await read_rows(operation, new)), strict=True))
        for doc_id, similarity in page:
            if doc_id in bodies:
                body = bodies[doc_id]
                row = None if body is None else row_of(doc_id, body)
                tested[doc_id] = (row, similarity) if row and (where is None or where(row)) else None
            if near := tested[doc_id]:
                found.append(near)
                if len(found) == limit:
                    return found
    return found


async def _looked_through(
    operation: Operation, vector: Sequence[float], limit: int, where: Where | None, listed: Listed | None
) -> list[NearRow]:
    best: dict[DocId, Row] = {}
    named: list[Named] = []
    scan = Scan(prefix="", with_bodies=True, limit=PAGE_DOCUMENTS, listed=listed)
    while limit > 0 and (page := await scan.next_page(operation)) is not None:
        known = [(doc_id, body) for doc_id, body in page if doc_id is not None]
        bodies = good_bodies([doc_id for doc_id, _ in known], [body for _, body in known])
        rows = [row_of(doc_id, body) for (doc_id, _), body in zip(known, bodies, strict=True) if body is not None]
        best |= {row[0]: row for row in rows if where is None or where(row)}
        measured = await rows_by_id(operation, best.keys() - {doc_id for doc_id, _ in named}, "similar", vector)
        named = _in_order([*named, *((doc_id, row[1]) for doc_id, row in measured.items())])[:limit]
        best = {doc_id: best[doc_id] for doc_id, _ in named}
    return [(best[doc_id], similarity) for doc_id, similarity in named]


def _in_order(found: Sequence[tuple[DocId | None, float | None]]) -> list[Named]:
    """Return what is a document with a vector, the nearest first, then texts by code point, then other ids."""
    named = [(doc_id, similarity) for doc_id, similarity in found if doc_id is not None and similarity is not None]
    return sorted(named, key=lambda each: (-each[1], isinstance(each[0], bytes), each[0]))

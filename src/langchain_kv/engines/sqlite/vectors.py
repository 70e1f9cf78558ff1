"""The search among the vectors of a collection in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from langchain_kv.engines.base import DocId, NearRow, Where
from langchain_kv.engines.catalog import no_vectors
from langchain_kv.engines.sqlite.catalog import settings_of
from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.engines.sqlite.rows import in_chunks, rows_by_id
from langchain_kv.engines.sqlite.schema import COLUMNS
from langchain_kv.engines.vectors import MATRICES_MAX_BYTES, Matrix, Near, Vectors, merged, vectors_of
from langchain_kv.engines.vectors import nearest_rows as rows_near
from langchain_kv.runtime.forks import HeldAcrossForks

__all__ = ["nearest_rows"]

BLOCK_BYTES: Final = 32 * 1024 * 1024
"""Bytes of vectors that are read and compared at once where they are too many to keep."""

_guard: Final = HeldAcrossForks()
"""One lock for all matrices of files: numpy uses every processor for one search anyway."""


def nearest_rows(
    connection: Connection,
    table: int,
    vector: bytes,
    *,
    limit: int,
    ids: Sequence[DocId] | None,
    where: Where | None,
) -> list[NearRow]:
    """Return what ``Engine.nearest`` does, as of one moment."""
    vectors = vectors_of(connection.file.settings.get(table) or settings_of(connection, table))
    if vectors is None:
        raise no_vectors()
    begins = not connection.in_transaction
    try:
        with _guard.lock:  # before the moment that is read, so that no matrix has seen what this reader has not
            if begins:
                connection.execute("BEGIN")
            if ids is None:
                matrix = _matrix(connection, table, vectors, is_own=not begins)
            else:
                matrix = Matrix(vectors)
                for part in in_chunks(connection, f"SELECT id, vector FROM vectors_{table}", ids):
                    matrix.put(part)
        return rows_near(
            _Blocks(connection, table, vectors) if matrix is None else _Guarded(matrix),
            vector,
            lambda found: rows_by_id(connection, table, found, COLUMNS),
            limit,
            where,
        )
    finally:
        if begins and connection.in_transaction:
            connection.execute("COMMIT")


class _Guarded(NamedTuple):
    """A matrix that other threads use, too."""

    matrix: Matrix

    def nearest(self, vector: bytes, count: int) -> list[Near]:
        with _guard.lock:
            return self.matrix.nearest(vector, count)


class _Blocks(NamedTuple):
    """Vectors that are read from the file for each search, because they are too many to keep."""

    connection: Connection
    table: int
    vectors: Vectors

    def nearest(self, vector: bytes, count: int) -> list[Near]:
        return merged((block.nearest(vector, count) for block in self._matrices()), count)

    def _matrices(self) -> Iterator[Matrix]:
        for part in _read(self.connection, self.table, self.vectors, 0):
            block = Matrix(self.vectors, len(part))
            block.put((doc_id, vector) for _, doc_id, vector in part)
            yield block


def _matrix(connection: Connection, table: int, vectors: Vectors, *, is_own: bool) -> Matrix | None:
    """Return the collection's vectors in memory, as new as this reader's moment; None where they are not to be kept."""
    stored, last = connection.execute(
        f"SELECT (SELECT count(*) FROM vectors_{table}), (SELECT max(seq) FROM vectors_{table})"
    ).fetchone()
    # Within a change of its own a reader sees what nobody may ever see again.
    if is_own or 4 * stored * vectors.dimension > MATRICES_MAX_BYTES:
        return None
    matrices = connection.file.matrices
    matrix = matrices.pop(table, None) or Matrix(vectors, stored)
    _refresh(connection, table, matrix, stored, last or 0)
    matrices[table] = matrix
    while sum(each.size_bytes for each in matrices.values()) > MATRICES_MAX_BYTES and len(matrices) > 1:
        del matrices[next(iter(matrices))]
    return matrix


def _refresh(connection: Connection, table: int, matrix: Matrix, stored: int, last: int) -> None:
    """Bring a matrix to what is stored: what is new has a greater number, what is gone is missing in the count."""
    if last != matrix.last:
        for part in _read(connection, table, matrix.vectors, matrix.last):
            matrix.put((doc_id, vector) for _, doc_id, vector in part)
    if len(matrix) != stored:
        alive = {doc_id for (doc_id,) in connection.execute(f"SELECT id FROM vectors_{table}").fetchall()}
        matrix.remove(matrix.ids - alive)
    matrix.last = last


def _read(connection: Connection, table: int, vectors: Vectors, after: int) -> Iterator[list[tuple[int, DocId, bytes]]]:
    limit = max(BLOCK_BYTES // (4 * vectors.dimension), 1)
    while True:
        part = connection.execute(
            f"SELECT seq, id, vector FROM vectors_{table} WHERE seq>? ORDER BY seq LIMIT ?", (after, limit)
        ).fetchall()
        if part:
            yield part
        if len(part) < limit:
            return
        after = part[-1][0]

"""Items found by their meaning: vectors of their texts, compared with that of a question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from langgraph.store.base import IndexConfig, PutOp, ensure_embeddings, get_text_at_path, tokenize_path

from langchain_kv.embeddings.vectors import imported_numpy
from langchain_kv.errors import BadVectorError, ConfigError
from langchain_kv.places.extras import require
from langchain_kv.runtime.plans import Plan, Step
from langchain_kv.values.keys import type_name

__all__ = ["Index", "Scorer"]

_WHOLE: Final = "$"

_DIMENSION_MAX: Final = 4_096
"""Of the vectors of a Data API's collection (source: its documentation)."""


class Index:
    """What of each item is turned into vectors, and how.

    Args:
        config: LangGraph's ``IndexConfig``: ``embed`` and, optional, ``dims`` and ``fields``.

    Raises:
        ConfigError: it is none, or numpy is not installed.
    """

    def __init__(self, config: IndexConfig) -> None:
        require("numpy", "vector", "Searches by meaning")
        if not isinstance(config, Mapping) or config.get("embed") is None:
            raise ConfigError('index must be a mapping with "embed": give {"dims": 1536, "embed": embeddings}.')
        dims, fields = config.get("dims"), config.get("fields") or [_WHOLE]
        if dims is not None and (isinstance(dims, bool) or not isinstance(dims, int) or dims < 1):
            raise ConfigError(f"dims of index must be a number of dimensions over 0, got {dims!r:.40}.")
        if isinstance(fields, str) or not all(isinstance(field, str) for field in fields):
            raise ConfigError(f"fields of index must be a list of paths, got {fields!r:.60}: give ['text'].")
        self.dims: Final = dims
        self.embeddings: Final = ensure_embeddings(config["embed"])
        self._paths: Final = _tokenized(fields)

    @property
    def dimension(self) -> int:
        """How many numbers the vectors of a Data API's collection are to have; 0: it has no room for such."""
        return self.dims if self.dims is not None and self.dims <= _DIMENSION_MAX else 0

    def texts_of(self, put: PutOp) -> list[str]:
        """Return the texts of an item that are to be found, each once."""
        if put.index is False or put.value is None:
            return []
        paths = self._paths if put.index is None else _tokenized(put.index)
        return list(dict.fromkeys(text for path in paths for text in get_text_at_path(put.value, path)))

    def vectors_of(self, texts: Iterable[str]) -> Plan[dict[str, str]]:
        """Have the model answer the vectors of texts, as items keep them, by text.

        Raises:
            BadVectorError: it answers something else.
        """
        asked = list(dict.fromkeys(texts))
        if not asked:
            return {}
        vectors = yield Step.of(self.embeddings.embed_documents, self.embeddings.aembed_documents, asked)
        table = self._table(vectors, len(asked))
        encode = msgspec.json.encode  # as base64 text, with its quotes
        return {text: encode(row.tobytes()).decode()[1:-1] for text, row in zip(asked, table, strict=True)}

    def scorers_of(self, questions: Iterable[str]) -> Plan[dict[str, Scorer]]:
        """Have the model answer the vectors of questions; return what compares with them, by question."""
        asked = list(dict.fromkeys(questions))
        if not asked:
            return {}

        def embed_all() -> list[list[float]]:
            return [self.embeddings.embed_query(question) for question in asked]

        async def aembed_all() -> list[list[float]]:
            return await asyncio.gather(*(self.embeddings.aembed_query(question) for question in asked))

        table = self._table((yield Step(embed_all, aembed_all)), len(asked))
        return {question: Scorer(row) for question, row in zip(asked, table, strict=True)}

    def _table(self, vectors: Any, count: int) -> Any:
        numpy = imported_numpy()
        try:
            with numpy.errstate(over="ignore"):
                table = numpy.asarray(vectors, "<f4")
        except (TypeError, ValueError):
            table = numpy.zeros(0)
        if table.ndim != 2 or len(table) != count or not table.shape[1] or not numpy.isfinite(table).all():
            raise BadVectorError(
                f"The model of index ({type_name(self.embeddings)}) did not answer one vector of finite numbers, all"
                f" of one length, for each of {count:,} texts. Nothing was stored: look at the model."
            )
        if self.dims is not None and table.shape[1] != self.dims:
            raise BadVectorError(
                f"The model of index ({type_name(self.embeddings)}) answers vectors of {table.shape[1]:,} dimensions,"
                f" index says {self.dims:,}: set dims of index right. Nothing was stored."
            )
        return table


class Scorer:
    """Compares vectors with that of one question, by their cosine.

    Args:
        vector: of float32 numbers.

    Attributes:
        vector: its numbers, little-endian.
    """

    def __init__(self, vector: Any) -> None:
        numpy = imported_numpy()
        exact = vector.astype("f8")
        norm = numpy.linalg.norm(exact)
        self._unit = (exact / norm if norm else exact).astype("f4")
        self._size = vector.nbytes
        self.vector: Final = vector.tobytes()

    def scores_of(self, items: Sequence[Any]) -> list[float | None]:
        """Return how near each item comes with the nearest of its vectors; None for one that has none of this length.

        Args:
            items: what the items have under ``vectors``.
        """
        texts: list[bytes] = []
        counts: list[int] = []
        for vectors in items:
            own = [found for found in map(_bytes_in, vectors or ()) if len(found) == self._size]
            texts += own
            counts.append(len(own))
        if not texts:
            return [None] * len(items)
        numpy = imported_numpy()
        table = numpy.frombuffer(b"".join(texts), "<f4").reshape(len(texts), -1)
        norms = numpy.sqrt(numpy.einsum("ij,ij->i", table, table))
        cosines = ((table @ self._unit) / numpy.where(norms, norms, 1)).tolist()
        scores: list[float | None] = []
        at = 0
        for count in counts:
            scores.append(max(cosines[at : at + count]) if count else None)
            at += count
        return scores


def _bytes_in(text: Any) -> bytes:
    try:
        found: bytes = msgspec.convert(text, bytes)
        return found
    except (msgspec.ValidationError, UnicodeEncodeError):
        return b""


def _tokenized(paths: Iterable[str]) -> list[list[str] | str]:
    return [path if path == _WHOLE else tokenize_path(path) for path in paths]

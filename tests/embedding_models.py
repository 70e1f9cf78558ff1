"""Models for tests of the cache of embeddings: quick, right by a rule, and each call of them noted."""

from __future__ import annotations

import array
import hashlib
import random
import threading
from collections.abc import Callable
from typing import Any

from langchain_core.embeddings import Embeddings

__all__ = ["Model", "float32", "vector_of"]


def float32(numbers: list[float]) -> list[float]:
    """Return the numbers rounded to float32."""
    return array.array("f", numbers).tolist()


def vector_of(text: str, role: str = "document", size: int = 4) -> list[float]:
    """Return the right vector of a text: float32, different for each text and role."""
    seeded = random.Random(hashlib.sha256(f"{role}:{text}".encode("utf-8", "surrogatepass")).digest())
    return float32([seeded.uniform(-1, 1) for _ in range(size)])


class Model(Embeddings):
    """Embeds by ``vector_of``.

    Attributes:
        model: its name.
        size: how many numbers a vector has.
        batches: the texts of each call for documents, plain ones and coroutines.
        queries: the texts of each query.
        calls: the names of the methods that were called.
        wrong: makes something else of what it answers; None: the right answer.
        during: is called in the midst of each call, with its texts.
    """

    def __init__(self, size: int = 4, name: str = "the-model") -> None:
        self.model = name
        self.size = size
        self.batches: list[list[str]] = []
        self.queries: list[str] = []
        self.calls: list[str] = []
        self.wrong: Callable[[list[Any]], Any] | None = None
        self.during: Callable[[list[str]], Any] = lambda texts: None
        self._lock = threading.Lock()

    @property
    def texts(self) -> list[str]:
        """All the documents that it was given."""
        return [text for batch in self.batches for text in batch]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        answer = self._documents("embed_documents", texts)
        self.during(texts)
        return answer

    def embed_query(self, text: str) -> list[float]:
        answer = self._query("embed_query", text)
        self.during([text])
        return answer

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        answer = self._documents("aembed_documents", texts)
        waiting = self.during(texts)
        if waiting is not None:
            await waiting
        return answer

    async def aembed_query(self, text: str) -> list[float]:
        answer = self._query("aembed_query", text)
        waiting = self.during([text])
        if waiting is not None:
            await waiting
        return answer

    def _documents(self, method: str, texts: list[str]) -> Any:
        with self._lock:
            self.calls.append(method)
            self.batches.append(list(texts))
        answer = [vector_of(text, "document", self.size) for text in texts]
        return answer if self.wrong is None else self.wrong(answer)

    def _query(self, method: str, text: str) -> Any:
        with self._lock:
            self.calls.append(method)
            self.queries.append(text)
        answer = vector_of(text, "query", self.size)
        return answer if self.wrong is None else self.wrong([answer])[0]

"""What a cache of embeddings costs: ours, LangChain's on the same kind of store, and the bare SQL with float32.

``python -m benchmarks.embeddings`` prints the table of docs/embeddings.md: 10,000 vectors of 1,536 numbers, each row
measured in turn, every answer compared. ``--count`` and ``--rounds`` make it shorter.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sqlite3
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import Embeddings

from benchmarks.measure import Figures, Subject, compare
from langchain_kv import EmbeddingCache, KVByteStore

DIMENSIONS = 1_536
BATCH = 500
PAGE = 500


class Free(Embeddings):
    """Answers vectors that were made before, of length 1 as those of most services, and takes no time."""

    def __init__(self, count: int) -> None:
        table = np.random.default_rng(7).standard_normal((count, DIMENSIONS)).astype("float32")
        self.array = table / np.linalg.norm(table, axis=1, keepdims=True)
        self.vectors: list[list[float]] = self.array.tolist()
        self.texts = [f"{number} {'words of a chunk ' * 20}" for number in range(count)]
        self._places = {text: number for number, text in enumerate(self.texts)}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.vectors[self._places[text]] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[self._places[text]]


class BareSQL:
    """sqlite3 and numpy, with the settings that our files have; it knows that all texts are new, or that none is."""

    def __init__(self, file: Path, model: Embeddings, page_size: int = 8_192) -> None:
        self._model = model
        self._is_filled = file.exists()
        self._db = sqlite3.connect(file, isolation_level=None)
        for setting in (f"page_size={page_size}", "journal_mode=WAL", "synchronous=FULL"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("CREATE TABLE IF NOT EXISTS kv(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL)")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = []
        if self._is_filled:
            for some in _batched(texts, PAGE):
                found += [np.frombuffer(value, "<f4").tolist() for value in self._values(some)]
            return found
        for some in _batched(texts, BATCH):
            vectors = self._model.embed_documents(list(some))
            rows = [(_key(text), row.tobytes()) for text, row in zip(some, np.array(vectors, "<f4"), strict=True)]
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO kv VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value", rows)
            self._db.execute("COMMIT")
            found += vectors
        self._is_filled = True
        return found

    def embed_documents_array(self, texts: list[str]) -> Any:
        array = np.empty((len(texts), DIMENSIONS), "<f4")
        for start, some in enumerate(_batched(texts, PAGE)):
            for place, value in enumerate(self._values(some), start * PAGE):
                array[place] = np.frombuffer(value, "<f4")
        return array

    def _values(self, texts: Any) -> list[bytes]:
        keys = [_key(text) for text in texts]
        marks = ",".join("?" * len(keys))
        found = dict(self._db.execute(f"SELECT key, value FROM kv WHERE key IN ({marks})", keys))
        return [found[key] for key in keys]

    def close(self) -> None:
        self._db.close()


class Theirs:
    """CacheBackedEmbeddings over our byte store."""

    def __init__(self, file: Path, model: Embeddings) -> None:
        self._store = KVByteStore("vectors", f"sqlite:{file}")
        self._cache = CacheBackedEmbeddings.from_bytes_store(
            model, self._store, namespace="free", batch_size=BATCH, key_encoder="blake2b"
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._cache.embed_documents(texts)

    def close(self) -> None:
        self._store.close()


def ours(file: Path, model: Embeddings) -> Any:
    return EmbeddingCache(model, f"sqlite:{file}", name="free", batch_size=BATCH)


OPENED: dict[str, Callable[[Path, Embeddings], Any]] = {
    "bare SQL": BareSQL,
    "`EmbeddingCache`": ours,
    "`CacheBackedEmbeddings`": Theirs,
}


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=24).hexdigest()


def _batched(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def keeping(name: str, folder: Path, model: Free) -> Subject:
    """Have all texts embedded and kept, on a new file each round."""
    numbers = itertools.count()
    caches: list[Any] = []

    def check(_: int, answer: Any) -> None:
        assert answer == model.vectors

    return Subject(
        name,
        lambda _: caches.append(OPENED[name](folder / f"{name.strip('`')}-{next(numbers)}.db", model)),
        lambda _: caches[-1].embed_documents(model.texts),
        check,
        lambda _: caches.pop().close(),
    )


def reading(name: str, cache: Any, model: Free, *, as_array: bool) -> Subject:
    """Have all texts found."""

    def check(_: int, answer: Any) -> None:
        assert np.array_equal(answer, model.array) if as_array else answer == model.vectors

    read = cache.embed_documents_array if as_array else cache.embed_documents
    return Subject(name, lambda _: None, lambda _: read(model.texts), check, lambda _: None)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="benchmarks.embeddings", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = Free(options.count)
    limits = {"rounds": options.rounds, "least": options.rounds, "peers_least": 2, "limit_s": 30.0}
    with tempfile.TemporaryDirectory(prefix="embeddings") as temporary:
        folder = Path(temporary)
        columns = {"keep": compare([keeping(name, folder, model) for name in OPENED], **limits)}
        caches = {name: opened(folder / f"{name.strip('`')}-0.db", model) for name, opened in OPENED.items()}
        for title, as_array in (("read as lists", False), ("read as an array", True)):
            able = [
                (name, each) for name, each in caches.items() if hasattr(each, "embed_documents_array") or not as_array
            ]
            columns[title] = compare([reading(name, each, model, as_array=as_array) for name, each in able], **limits)
        for cache in caches.values():
            cache.close()
        sizes = {name: (folder / f"{name.strip('`')}-0.db").stat().st_size / options.count for name in OPENED}
    show(columns, sizes)


def show(columns: dict[str, list[Figures]], sizes: dict[str, float]) -> None:
    """Print the processor time of each, and its ratio to the bare SQL's: the median of the pairs', with quartiles."""
    print("| | " + " | ".join([*columns, "bytes a vector"]) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for name, size in sizes.items():
        cells = [name]
        for figures in columns.values():
            own = next((each for each in figures if each.name == name), None)
            if own is None:
                cells.append("-")
                continue
            middle, low, high = own.ratio(figures[0], "cpu_s")
            ratio = "" if own is figures[0] else f", **{middle:.2f}** ({low:.2f}-{high:.2f})"
            cells.append(own.error or f"{own.cpu_s:.2f} s{ratio}")
        print("| " + " | ".join([*cells, f"{size:,.0f}"]) + " |")


if __name__ == "__main__":
    main()

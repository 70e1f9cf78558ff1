"""Keep the sources of Python's standard library as parent documents, and cache a vector for every chunk of them.

``make run`` runs this. It does the same thing twice, on a file (``sqlite:``) and over HTTP (``lckv serve``):

1. *fill*, in one process: every source file becomes a parent ``Document`` in a docstore and is split into chunks; every
   chunk gets a vector of 256 numbers, through an ``EmbeddingCache``.
2. *check*, in a new process: the parents come back and are compared with the files; their chunks are embedded once
   more, and not one of them may reach the embedding: every vector comes from the cache.

At the end it prints what ``EmbeddingCache`` saves beside LangChain's own ``CacheBackedEmbeddings``, on files.

The exit code is 0 only if all of it holds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

from langchain_kv import DocumentStore, EmbeddingCache, KVByteStore

DIMENSIONS = 256
TOKEN = "a token of this example"
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
BATCH = 32  # files at a time


# -- the model ------------------------------------------------------------------------------------------------------


class FeatureHashing(Embeddings):
    """Plain feature hashing: each word adds or takes 1 at the place that its checksum names. No meaning is learnt.

    Your own model goes here: any LangChain ``Embeddings``, such as ``OpenAIEmbeddings(...)``, whose name the cache
    below finds itself: no two models share vectors.

    Attributes:
        texts_embedded: how many texts came here, and not from the cache.
    """

    def __init__(self) -> None:
        self.texts_embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts_embedded += len(texts)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * DIMENSIONS
        for word in re.findall(r"\w+", text):
            checksum = zlib.crc32(word.encode())
            vector[checksum % DIMENSIONS] += 1.0 if checksum & 0x10000 else -1.0
        length = math.sqrt(sum(number * number for number in vector)) or 1.0
        return [number / length for number in vector]


# -- the two steps, each run in a process of its own ------------------------------------------------------------------


def open_stores(url: str) -> tuple[Any, Any, Any, Any]:
    """Return the docstore, the cached embedding, the model below it and the splitter."""
    token = TOKEN if url.startswith("http") else None
    docstore = DocumentStore("parents", url, token=token)
    model = FeatureHashing()
    cached = EmbeddingCache(model, url, name="feature-hashing-256", collection="vectors", token=token)
    splitter = RecursiveCharacterTextSplitter.from_language(Language.PYTHON, chunk_size=2_000, chunk_overlap=0)
    return docstore, cached, model, splitter


def fill(url: str) -> dict[str, Any]:
    """Keep every source as a parent, and cache the vectors of its chunks."""
    docstore, cached, model, splitter = open_stores(url)
    names = source_names()
    tally = Tally("keeping", len(names))
    skipped = 0
    for batch in in_batches(names):
        parents = []
        for name in batch:
            try:
                text = read_source(name).decode()
            except UnicodeDecodeError:
                skipped += 1
                continue
            parents.append((name, Document(page_content=text, metadata={"source": name})))
        docstore.mset(parents)
        tally.add(len(batch), parents, vectors_of(cached, splitter, parents))
    return {**tally.closed(), "skipped": skipped, "embedded": model.texts_embedded}


def check(url: str) -> dict[str, Any]:
    """Read every parent back and compare it with its file; embed its chunks again, from the cache alone."""
    docstore, cached, model, splitter = open_stores(url)
    names = sorted(docstore.yield_keys())
    tally = Tally("reading back", len(names))
    different = 0
    for batch in in_batches(names):
        parents = list(zip(batch, docstore.mget(batch), strict=True))
        for name, parent in parents:
            same = parent.page_content.encode() == read_source(name) and parent.metadata == {"source": name}
            different += not same
        tally.add(len(batch), parents, vectors_of(cached, splitter, parents))
    return {**tally.closed(), "whole": len(names) - different, "embedded": model.texts_embedded}


def vectors_of(cached: Any, splitter: Any, parents: list[tuple[str, Any]]) -> list[list[float]]:
    chunks = splitter.split_documents([parent for _, parent in parents])
    return cached.embed_documents([chunk.page_content for chunk in chunks])


class Tally:
    """Counts and shows how far a step is, on one line of stderr."""

    def __init__(self, verb: str, files: int) -> None:
        self._verb, self._files = verb, files
        self._done = self._parents = self._chunks = self._bytes = 0
        self._digest = hashlib.sha256()
        self._started = time.monotonic()
        self._shown = 0.0

    def add(self, files: int, parents: list[tuple[str, Any]], vectors: list[list[float]]) -> None:
        self._done += files
        self._parents += len(parents)
        self._bytes += sum(len(parent.page_content.encode()) for _, parent in parents)
        self._chunks += len(vectors)
        for vector in vectors:
            if len(vector) != DIMENSIONS:
                sys.exit(f"A vector has {len(vector)} numbers, {DIMENSIONS} were expected.")
            self._digest.update(array("d", vector).tobytes())
        if self._done == self._files or time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            line = f"  {self._verb}: {self._done:,} of {self._files:,} files, {self._chunks:,} chunks"
            print(f"\r{line:<70}", end="", file=sys.stderr, flush=True)

    def closed(self) -> dict[str, Any]:
        print(file=sys.stderr)
        return {
            "parents": self._parents,
            "megabytes": round(self._bytes / 1e6, 1),
            "chunks": self._chunks,
            "vectors": self._digest.hexdigest(),
            "seconds": round(time.monotonic() - self._started, 1),
        }


def source_names() -> list[str]:
    """Return the standard library's source files, relative to its folder."""
    root = standard_library()
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if LEFT_OUT.isdisjoint(path.parts))


def read_source(name: str) -> bytes:
    return (standard_library() / name).read_bytes()


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def in_batches(names: list[str]) -> Iterator[list[str]]:
    remaining = iter(names)
    while batch := list(itertools.islice(remaining, BATCH)):
        yield batch


# -- the whole, and what must hold ------------------------------------------------------------------------------------


def main(directory: Path) -> int:
    """Run both steps on a file and over HTTP, print what was counted, and say whether all of it holds."""
    started = time.monotonic()
    print(f"The embedding is plain feature hashing ({DIMENSIONS} numbers), written for this example: no model is used.")
    rows = []
    url = f"sqlite:{directory / 'stdlib.db'}"
    print(f"1. On a file: {url}")
    rows.append(("a file", *both_steps(url)))
    with LocalServer(directory / "served.db") as server:
        print(f"2. Over HTTP, from a server of our own: {server.url}")
        rows.append(("over HTTP", *both_steps(server.url)))
    show_table(rows)
    show_factors(directory)
    faults = [fault for row in rows for fault in faults_of(*row)]
    if rows[0][1]["vectors"] != rows[1][1]["vectors"]:
        faults.append("the file and the server do not hold the same vectors")
    for fault in faults:
        print("FAILED:", fault)
    if not faults:
        print(f"All of it holds. {time.monotonic() - started:.0f} seconds in all.")
    return 1 if faults else 0


def both_steps(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return in_new_process("fill", url), in_new_process("check", url)


def in_new_process(step: str, url: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, step, url], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"FAILED: the step {step!r} on {url} ended with exit code {done.returncode}.")
    return json.loads(done.stdout)


def show_table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    columns = ("parents", "whole", "megabytes", "chunks", "embedded", "seconds")
    print(f"\n{'':<22}" + "".join(f"{column:>11}" for column in columns))
    for name, filled, checked in rows:
        for step, counts in ((f"{name}, kept", filled), (f"{name}, read back", checked)):
            cells = (f"{counts[column]:>11,}" if column in counts else f"{'-':>11}" for column in columns)
            print(f"{step:<22}" + "".join(cells))
    print(f"Source files that are not UTF-8, skipped: {rows[0][1]['skipped']}.")


def faults_of(name: str, filled: dict[str, Any], checked: dict[str, Any]) -> Iterator[str]:
    if not filled["parents"] or not filled["chunks"]:
        yield f"{name}: nothing was kept"
    if checked["parents"] != filled["parents"]:
        yield f"{name}: {filled['parents']} parents were kept, {checked['parents']} came back"
    if checked["whole"] != checked["parents"]:
        yield f"{name}: {checked['parents'] - checked['whole']} parents differ from their files"
    if checked["embedded"]:
        yield f"{name}: {checked['embedded']} texts were embedded again"
    if (checked["chunks"], checked["vectors"]) != (filled["chunks"], filled["vectors"]):
        yield f"{name}: the vectors that came back are not those that were cached"


# -- beside LangChain's own cache -------------------------------------------------------------------------------------


class Free(Embeddings):
    """Answers vectors as long as usual ones, which were made before, and takes no time."""

    def __init__(self, count: int) -> None:
        numbers = random.Random(7)
        self._vectors = [array("f", [numbers.gauss(0, 1) for _ in range(1_536)]).tolist() for _ in range(count)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[int(text)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[int(text)]


def show_factors(directory: Path, count: int = 1_000) -> dict[str, float]:
    """Have both caches keep and read the same vectors, each on a file of its own; print how many times as much
    processor time and room LangChain's takes."""
    model, texts = Free(count), [str(number) for number in range(count)]
    right = model.embed_documents(texts)
    costs = []
    for name in ("theirs", "ours"):
        file = directory / f"{name}.db"
        with KVByteStore("vectors", f"sqlite:{file}") as store:
            if name == "ours":
                cache: Embeddings = EmbeddingCache(model, store, name="free")
            else:
                cache = CacheBackedEmbeddings.from_bytes_store(model, store, namespace="free", key_encoder="blake2b")
            kept_s = processor_time(lambda cache=cache: cache.embed_documents(texts) == right)
            read_s = processor_time(lambda cache=cache: cache.embed_documents(texts) == right)
        costs.append((kept_s, read_s, file.stat().st_size))
    factors = dict(zip(("to keep", "to read", "room"), (a / b for a, b in zip(*costs, strict=True)), strict=True))
    told = ", ".join(f"{value:.1f} times {name}" for name, value in factors.items())
    print(f"Beside EmbeddingCache, CacheBackedEmbeddings takes ({count:,} vectors of 1,536 numbers): {told}.")
    return factors


def processor_time(work: Callable[[], bool]) -> float:
    started = time.process_time()
    if not work():
        sys.exit("FAILED: a cache answered other vectors than the model.")
    return time.process_time() - started


class LocalServer:
    """``lckv serve`` on a free port, as a process of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> LocalServer:
        command = [sys.executable, "-m", "langchain_kv.cli", "serve", "--db", f"sqlite:{self._file}", "--port", "0"]
        environment = {**os.environ, "LCKV_TOKEN": TOKEN}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit(f"FAILED: the server did not start (exit code {self._process.wait()}).")
        self.url = line.split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        code = self._process.wait(timeout=30)
        if code != 0:
            sys.exit(f"FAILED: the server ended with exit code {code}.")


STEPS: dict[str, Callable[[str], dict[str, Any]]] = {"fill": fill, "check": check}

if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(STEPS[sys.argv[1]](sys.argv[2])))
        sys.exit(0)
    with tempfile.TemporaryDirectory(prefix="stdlib_parents-") as temporary:
        sys.exit(main(Path(temporary)))

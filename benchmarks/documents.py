"""What a store of documents costs: ours, LangChain's ``create_kv_docstore`` on the same kind of store, and bare SQL.

``python -m benchmarks.documents`` prints the table of docs/documents.md: 1,000 documents of 1,000 characters, each row
measured in turn, every answer compared.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from langchain_classic.storage import create_kv_docstore
from langchain_core.documents import Document

from benchmarks.floors import BareSQL
from benchmarks.measure import Figures, Subject, compare
from langchain_kv import DocumentStore, KVByteStore

COUNT = 1_000
KEYS = [f"k{number:07}" for number in range(COUNT)]
TEXT = "words of a chunk " * 60


class BareDocuments(BareSQL):
    """sqlite3 and orjson, with the settings that our files have; metadata of JSON's types only, no key checked."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._dumps = _json_of
        self._loads = _document_of


def _json_of(document: Document) -> bytes:
    fields = {"page_content": document.page_content, "metadata": document.metadata, "id": document.id}
    return b"%b" % orjson.dumps(fields)


def _document_of(text: bytes) -> Document:
    return Document(**orjson.loads(text))


def documents(number: int) -> list[tuple[str, Document]]:
    """Return the documents of a round, which no other has."""
    return [(key, Document(f"{number} {TEXT}"[:COUNT], metadata={"source": "a.txt", "key": key})) for key in KEYS]


def keeping(name: str, store: Any) -> Subject:
    """Have the documents kept, in the place of those of the round before."""
    given: list[list[tuple[str, Document]]] = []

    def check(number: int, _: Any) -> None:
        assert store.mget(KEYS[::100]) == [document for _, document in documents(number)[::100]]

    return Subject(
        name,
        lambda number: given.append(documents(number)),
        lambda _: store.mset(given[-1]),
        check,
        lambda _: given.clear(),
    )


def reading(name: str, store: Any, right: Sequence[Document]) -> Subject:
    """Have the documents read."""

    def check(_: int, found: Any) -> None:
        assert found == right

    return Subject(name, lambda _: None, lambda _: store.mget(KEYS), check, lambda _: None)


OPENED: dict[str, Callable[[Path], Any]] = {
    "bare SQL": lambda folder: BareDocuments(str(folder / "bare.db")),
    "`DocumentStore`": lambda folder: DocumentStore("documents", f"sqlite:{folder / 'ours.db'}"),
    "`create_kv_docstore`": lambda folder: create_kv_docstore(KVByteStore("documents", f"sqlite:{folder / 'kv.db'}")),
}


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="benchmarks.documents", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    limits = {"rounds": options.rounds, "least": options.rounds, "peers_least": 8, "limit_s": 5.0}
    with tempfile.TemporaryDirectory(prefix="documents") as temporary:
        stores = {name: opened(Path(temporary)) for name, opened in OPENED.items()}
        kept = compare([keeping(name, store) for name, store in stores.items()], **limits)
        right = [document for _, document in documents(0)]
        for store in stores.values():
            store.mset(documents(0))
        read = compare([reading(name, store, right) for name, store in stores.items()], **limits)
        show(kept, read)


def show(kept: list[Figures], read: list[Figures]) -> None:
    """Print the processor time of each, and its ratio to the bare SQL's: the median of the pairs', with quartiles."""
    print("| | keep | read |\n|---|---|---|")
    for writing, reading in zip(kept, read, strict=True):
        cells = [writing.name]
        for own, floor in ((writing, kept[0]), (reading, read[0])):
            middle, low, high = own.ratio(floor, "cpu_s")
            ratio = "" if own is floor else f", **{middle:.2f}** ({low:.2f}-{high:.2f})"
            cells.append(own.error or f"{own.cpu_s * 1e3:.1f} ms{ratio}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

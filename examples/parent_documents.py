"""Keep parent documents with their children: add, find in a new process, change, remove.

``python examples/parent_documents.py`` keeps the parents in a file of its own; give another URL to keep them there.
Vector store, embedding and splitter are to be your own: these need no account.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from langchain_classic.retrievers import MultiVectorRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from langchain_kv import DocumentStore, ParentDocuments

POEMS = {
    "sea": "The sea is wide. The waves are tall. The gulls cry over the harbour.",
    "hill": "The hill is steep. The sheep are white. The wind goes through the grass.",
}
SPLITTER = RecursiveCharacterTextSplitter(separators=[". "], chunk_size=25, chunk_overlap=0)


class Letters(Embeddings):
    """Counts letters: no meaning is learnt, but the same words are near each other."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


def family(key: str, text: str) -> tuple[str, Document, list[Document]]:
    parent = Document(text, metadata={"title": key})
    return key, parent, SPLITTER.split_documents([parent])


def find(url: str, vectors: str, words: str) -> str:
    """Return the text of the parent whose child is nearest to the words."""
    with DocumentStore("parents", url) as docs:
        vectorstore = InMemoryVectorStore.load(vectors, Letters())
        retriever = MultiVectorRetriever(vectorstore=vectorstore, docstore=docs, search_kwargs={"k": 1})
        return "".join(parent.page_content for parent in retriever.invoke(words))


def find_in_new_process(url: str, vectors: str, words: str) -> str:
    command = [sys.executable, __file__, "find", url, vectors, words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(url: str, vectors: str) -> None:
    with DocumentStore("parents", url) as docs:
        vectorstore = InMemoryVectorStore(Letters())
        parents = ParentDocuments(docs, vectorstore)

        parents.put([family(key, text) for key, text in POEMS.items()])
        vectorstore.dump(vectors)
        print("found:", find_in_new_process(url, vectors, "white sheep"))

        parents.put([family("hill", "The hill is gone. A quarry is here.")])
        vectorstore.dump(vectors)
        print("changed:", find_in_new_process(url, vectors, "a quarry"))

        parents.delete(["hill"])
        print("removed; left:", sorted(docs.yield_keys()), f"with {len(vectorstore.store)} children")


if __name__ == "__main__":
    if sys.argv[1:2] == ["find"]:
        print(find(*sys.argv[2:]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "parents.db")
            main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:{file}", str(Path(directory, "vectors.json")))

"""A whole RAG on a laptop, with one process to run: `lckv serve` keeps what is embedded and what is retrieved.

The children and their vectors are in langchain-astradb's AstraDBVectorStore, as they would be on Astra DB, the parents
in a DocumentStore. ``python examples/laptop_rag.py`` serves a file of its own; give the URL of another Data API to use
that, with its token in ASTRA_DB_APPLICATION_TOKEN.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langchain_astradb import AstraDBVectorStore
from langchain_classic.retrievers import MultiVectorRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models.fake_chat_models import ParrotFakeChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_text_splitters import RecursiveCharacterTextSplitter

from langchain_kv import DocumentStore, ParentDocuments

POEMS = {
    "sea": "The sea is wide. The waves are tall. The gulls cry over the harbour.",
    "hill": "The hill is steep. The sheep are white. The wind goes through the grass.",
}
SPLITTER = RecursiveCharacterTextSplitter(separators=[". "], chunk_size=25, chunk_overlap=0)
PROMPT = ChatPromptTemplate.from_template("Answer {question!r} by this: {context}")


class Letters(Embeddings):
    """Stands for your own model. It counts letters: nothing is learnt, but the same words are near each other."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


@contextmanager
def opened(url: str) -> Iterator[tuple[DocumentStore, AstraDBVectorStore]]:
    """Open both stores on one Data API; the token of both is in the environment."""
    vectors = AstraDBVectorStore(
        collection_name="children", embedding=Letters(), api_endpoint=url, namespace="default_keyspace"
    )
    with DocumentStore("parents", url) as docs:
        yield docs, vectors


def put(url: str, key: str, text: str) -> None:
    """Store a text, or what has become of it, with its parts in the vector store."""
    with opened(url) as (docs, vectors):
        parent = Document(text, metadata={"title": key})
        ParentDocuments(docs, vectors).put([(key, parent, SPLITTER.split_documents([parent]))])


def ask(url: str, question: str) -> str:
    """Have the model answer by the text of which a part is nearest to the question."""
    with opened(url) as (docs, vectors):
        retriever = MultiVectorRetriever(vectorstore=vectors, docstore=docs, search_kwargs={"k": 1})
        context = " ".join(parent.page_content for parent in retriever.invoke(question))
        model = ParrotFakeChatModel()  # stands for your own: it says what it is asked
        return str((PROMPT | model).invoke({"question": question, "context": context}).text)


@contextmanager
def served(file: Path) -> Iterator[str]:
    """Run ``lckv serve`` on a free port; yield its URL."""
    command = [sys.executable, "-m", "langchain_kv.cli", "serve", "--db", f"sqlite:{file}", "--port", "0"]
    environment = {**os.environ, "LCKV_TOKEN": os.environ["ASTRA_DB_APPLICATION_TOKEN"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def fill(url: str) -> None:
    for key, text in POEMS.items():
        put(url, key, text)
    print("first:", ask(url, "white sheep"))


def change(url: str) -> None:
    print("again:", ask(url, "white sheep"))
    put(url, "hill", "The hill is gone. A quarry is here.")
    print("changed:", ask(url, "a quarry"))


if __name__ == "__main__":
    if sys.argv[1:]:
        fill(sys.argv[1])
        change(sys.argv[1])
    else:
        os.environ.setdefault("ASTRA_DB_APPLICATION_TOKEN", "a-token-of-this-laptop")
        with tempfile.TemporaryDirectory() as directory:
            with served(Path(directory, "rag.db")) as url:
                fill(url)
            with served(Path(directory, "rag.db")) as url:  # the next day
                change(url)

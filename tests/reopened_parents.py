"""A program that opens parents and children which another process kept: it finds, changes and removes them.

``python reopened_parents.py COLLECTION URL ARGUMENTS VECTORS COLOUR`` prints what both retrievers found as JSON, and
leaves the children in the file VECTORS.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import CharacterTextSplitter

from langchain_kv import DocumentStore, ParentDocuments

SPLITTER = CharacterTextSplitter(separator="|", chunk_size=1, chunk_overlap=0)
EMBEDDING = DeterministicFakeEmbedding(size=16)


async def work(docs: DocumentStore, vectors: InMemoryVectorStore, call: Callable[..., Any]) -> dict[str, Any]:
    """Return what is found as it is, after ``a.txt`` has changed, and after ``b.txt`` is removed."""
    parents = ParentDocuments(docs, vectors)
    near = {"vectorstore": vectors, "docstore": docs, "search_kwargs": {"k": 1}}
    retrievers = [MultiVectorRetriever(**near), ParentDocumentRetriever(child_splitter=SPLITTER, **near)]

    async def find(text: str) -> list[Any]:
        found = [await call(retriever, "invoke", text) for retriever in retrievers]
        return [[[parent.page_content, parent.metadata] for parent in each] for each in found]

    told = {"added": await find("four")}
    changed = Document("five|six", metadata={"version": 2})
    await call(parents, "put", [("a.txt", changed, SPLITTER.split_documents([changed]))])
    told["changed"] = await find("six")
    await call(parents, "delete", ["b.txt"])
    told["removed"] = await call(docs, "mget", ["b.txt"])
    return told


async def call_sync(of: Any, name: str, argument: Any) -> Any:
    return getattr(of, name)(argument)


async def call_async(of: Any, name: str, argument: Any) -> Any:
    result = getattr(of, f"a{name}")(argument)
    assert inspect.isawaitable(result)
    return await result


def main(collection: str, url: str, arguments: str, file: str, colour: str) -> None:
    vectors = InMemoryVectorStore.load(file, EMBEDDING)
    with DocumentStore(collection, url, **json.loads(arguments)) as docs:
        told = asyncio.run(work(docs, vectors, {"sync": call_sync, "async": call_async}[colour]))
    vectors.dump(file)
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

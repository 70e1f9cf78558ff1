"""LangChain's retrievers over DocumentStore on every target, and parents that change and go with their children."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

import reopened_parents
from langchain_kv import (
    ConfigError,
    DocumentStore,
    InvalidValueError,
    KVStore,
    ParentDocuments,
    UnsupportedError,
    UsageError,
)
from places import Place
from reopened_parents import EMBEDDING, SPLITTER

TEXTS = {"a.txt": "one|two", "b.txt": "three|four"}


def vector_store() -> InMemoryVectorStore:
    return InMemoryVectorStore(EMBEDDING)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Any:
    """Call a method, or its async twin."""
    if request.param == "sync":
        yield lambda method, *arguments: method(*arguments)
        return
    with asyncio.Runner() as runner:

        def twin(method: Any, *arguments: Any) -> Any:
            return runner.run(getattr(method.__self__, f"a{method.__name__}")(*arguments))

        yield twin


def split(key: str, text: str, **metadata: Any) -> tuple[str, Document, list[Document]]:
    parent = Document(text, metadata={"source": key, **metadata})
    return key, parent, SPLITTER.split_documents([parent])


def found(call: Any, vectors: Any, docs: DocumentStore, text: str) -> list[Document]:
    """Return the parents of the one child that is nearest to a text."""
    retriever = MultiVectorRetriever(vectorstore=vectors, docstore=docs, search_kwargs={"k": 1})
    result: list[Document] = call(retriever.invoke, text)
    return result


def child_texts(vectors: InMemoryVectorStore) -> list[str]:
    return sorted(child["text"] for child in vectors.store.values())


# -- the retrievers alone ---------------------------------------------------------------------------------------------


def test_a_parent_document_retriever_keeps_its_parents_in_it(place: Place, call: Any) -> None:
    docs = place.store(DocumentStore)
    retriever = ParentDocumentRetriever(
        vectorstore=vector_store(), docstore=docs, child_splitter=SPLITTER, search_kwargs={"k": 1}
    )
    call(retriever.add_documents, [Document(text) for text in TEXTS.values()], list(TEXTS))

    for key, text in TEXTS.items():
        for part in text.split("|"):
            assert [parent.page_content for parent in call(retriever.invoke, part)] == [text]
        assert call(docs.mget, [key]) == [Document(text)]


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_new_process_finds_changes_and_removes_what_another_one_added(
    place: Place, colour: str, tmp_path: Path
) -> None:
    if place.name == "memory":
        return  # it ends with the process
    vectors = vector_store()
    docs = place.store(DocumentStore)
    parents = ParentDocuments(docs, vectors)
    parents.put([split(key, text) for key, text in TEXTS.items()])
    file = str(tmp_path / "vectors.json")
    vectors.dump(file)

    arguments = [docs.collection.name, place.url, json.dumps(place.arguments), file, colour]
    command = [sys.executable, "-W", "error", reopened_parents.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "added": [[[TEXTS["b.txt"], {"source": "b.txt"}]]] * 2,  # by both retrievers
        "changed": [[["five|six", {"version": 2}]]] * 2,
        "removed": [None],
    }
    vectors = InMemoryVectorStore.load(file, EMBEDDING)
    assert child_texts(vectors) == ["five", "six"]
    assert docs.mget(["a.txt", "b.txt"]) == [Document("five|six", metadata={"version": 2}), None]
    ParentDocuments(docs, vectors).delete(["a.txt"])  # which the other process changed last
    assert vectors.store == {}


# -- parents with their children --------------------------------------------------------------------------------------


def test_parents_are_added_changed_and_removed_with_their_children(place: Place, call: Any) -> None:
    docs, vectors = place.store(DocumentStore), vector_store()
    parents = ParentDocuments(docs, vectors)

    call(parents.put, [split(key, text) for key, text in TEXTS.items()])
    assert child_texts(vectors) == ["four", "one", "three", "two"]
    assert found(call, vectors, docs, "two") == [Document("one|two", metadata={"source": "a.txt"})]

    call(parents.put, [split("a.txt", "two|five|six", version=2)])
    assert child_texts(vectors) == ["five", "four", "six", "three", "two"]
    for part in ("two", "five", "six"):
        assert found(call, vectors, docs, part) == [
            Document("two|five|six", metadata={"source": "a.txt", "version": 2})
        ]

    call(parents.delete, ["a.txt", "x"])
    assert child_texts(vectors) == ["four", "three"]
    assert call(docs.mget, ["a.txt", "b.txt"]) == [None, Document("three|four", metadata={"source": "b.txt"})]
    call(parents.delete, ["b.txt"])
    assert vectors.store == {}
    assert list(docs.yield_keys()) == []


@pytest.fixture
def docs(request: pytest.FixtureRequest) -> DocumentStore:
    return DocumentStore("parents", f"memory:{request.node.name}")


def test_a_parent_can_change_alone(docs: DocumentStore, call: Any) -> None:
    vectors = vector_store()
    parents = ParentDocuments(docs, vectors)
    call(parents.put, [split("a.txt", "one|two")])
    before = dict(vectors.store)
    changed = Document("one and two", metadata={"title": "numbers"})

    call(parents.put, [("a.txt", changed, None), ("new", Document("without"), None)])

    assert vectors.store == before
    assert found(call, vectors, docs, "one") == [changed]
    call(parents.delete, ["a.txt", "new"])
    assert vectors.store == {}


def test_the_last_of_a_repeated_key_wins(docs: DocumentStore) -> None:
    vectors = vector_store()

    ParentDocuments(docs, vectors).put([split("a.txt", "one|two"), split("a.txt", "three")])

    assert child_texts(vectors) == ["three"]
    assert docs.mget(["a.txt"]) == [Document("three", metadata={"source": "a.txt"})]


def test_a_child_may_move_to_another_parent(docs: DocumentStore) -> None:
    vectors = vector_store()
    parents = ParentDocuments(docs, vectors)
    child = Document("one", id="1")
    parents.put([("a.txt", Document("a"), [child]), ("b.txt", Document("b"), [])])

    parents.put([("a.txt", Document("a"), []), ("b.txt", Document("b"), [child])])
    parents.delete(["a.txt"])

    assert vectors.store["1"]["metadata"] == {"doc_id": "b.txt"}


def test_children_keep_their_ids_and_stay_as_they_were_given(docs: DocumentStore) -> None:
    vectors = vector_store()
    parents = ParentDocuments(docs, vectors, id_key="parent")
    child = Document("one", id="1", metadata={"page": 3})

    parents.put([("a.txt", Document("one|two"), [child, Document("two")])])
    parents.put([("a.txt", Document("one!"), [child])])

    assert list(vectors.store) == ["1"]
    assert vectors.store["1"]["metadata"] == {"page": 3, "parent": "a.txt"}
    assert child == Document("one", id="1", metadata={"page": 3})


def test_the_children_stand_beside_the_parent_readable(docs: DocumentStore) -> None:
    child = Document("one", id="1")
    ParentDocuments(docs, vector_store()).put([("a.txt", Document("one"), [child])])

    assert KVStore("parents", docs._place.shown).mget(["a.txt"]) == [
        {"page_content": "one", "metadata": {}, "id": None, "children": ["1"]}
    ]
    (parent,) = docs.parents(["a.txt"])
    assert parent == (Document("one"), ["1"])


@pytest.mark.parametrize("stored", ["by the store", "by a retriever", "with other children"])
def test_parents_of_others_are_refused_before_anything_is_done(docs: DocumentStore, call: Any, stored: str) -> None:
    vectors = vector_store()
    if stored == "by a retriever":
        retriever = ParentDocumentRetriever(vectorstore=vectors, docstore=docs, child_splitter=SPLITTER)
        retriever.add_documents([Document("one|two")], ["a.txt"])
    elif stored == "by the store":
        docs.mset([("a.txt", Document("one|two"))])
    else:
        document = {"page_content": "one|two", "children": [1]}
        KVStore("parents", docs._place.shown).mset([("a.txt", document)])
    before = dict(vectors.store)
    parents = ParentDocuments(docs, vectors)

    for method, argument in ((parents.put, [split("b", "x"), split("a.txt", "new")]), (parents.delete, ["b", "a.txt"])):
        with pytest.raises(UsageError, match=r"Which children 'a.txt' have is not known: something else stored them"):
            call(method, argument)
    assert docs.mget(["a.txt", "b"]) == [Document("one|two"), None]
    assert vectors.store == before

    vectors.delete([key for key, child in vectors.store.items() if child["metadata"]["doc_id"] == "a.txt"])  # as told
    docs.mdelete(["a.txt"])
    call(parents.put, [split("a.txt", "new")])
    assert child_texts(vectors) == ["new"]


class Failing(InMemoryVectorStore):
    """Fails once, before or after it did what it was asked to."""

    def __init__(self, verb: str, done: bool) -> None:
        super().__init__(EMBEDDING)
        self._fails: tuple[str, bool] | None = None
        self.plan = (verb, done)

    @property
    def told(self) -> AbstractContextManager[Any]:
        """Expects its error, but of children that are deleted after all, as it then says when it is asked."""
        return nullcontext() if self.plan == ("delete", True) else pytest.raises(ConnectionError)

    def arm(self) -> None:
        self._fails = self.plan

    def _at(self, verb: str, done: bool) -> None:
        if self._fails == (verb, done):
            self._fails = None
            raise ConnectionError

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        self._at("add", False)
        added = super().add_documents(documents, ids, **kwargs)
        self._at("add", True)
        return added

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        return self.add_documents(documents, ids, **kwargs)

    def delete(self, ids: Any = None, **kwargs: Any) -> None:
        self._at("delete", False)
        super().delete(ids, **kwargs)
        self._at("delete", True)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("verb", ["add", "delete"])
def test_a_put_that_fails_half_way_loses_no_child_and_can_be_repeated(
    docs: DocumentStore, call: Any, verb: str, done: bool
) -> None:
    vectors = Failing(verb, done)
    parents = ParentDocuments(docs, vectors)
    call(parents.put, [split("a.txt", "one|two")])
    vectors.arm()

    with vectors.told:
        call(parents.put, [split("a.txt", "three|four")])
    (parent,) = docs.parents(["a.txt"])
    assert parent is not None
    assert set(parent.children or ()) >= set(vectors.store)
    assert found(call, vectors, docs, "one") == [Document("three|four", metadata={"source": "a.txt"})]

    call(parents.put, [split("a.txt", "three|four")])
    assert child_texts(vectors) == ["four", "three"]


@pytest.mark.parametrize("done", [False, True])
def test_a_delete_that_fails_half_way_can_be_repeated(docs: DocumentStore, call: Any, done: bool) -> None:
    vectors = Failing("delete", done)
    parents = ParentDocuments(docs, vectors)
    call(parents.put, [split("a.txt", "one|two")])
    vectors.arm()

    with vectors.told:
        call(parents.delete, ["a.txt"])
    call(parents.delete, ["a.txt"])

    assert vectors.store == {}
    assert docs.mget(["a.txt"]) == [None]


class OfOwnIds(InMemoryVectorStore):
    """Chooses ids itself, as some do."""

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        start = len(self.store)
        return super().add_documents(documents, [f"own {start + number}" for number in range(len(documents))])


def test_the_ids_that_a_vector_store_chooses_itself_are_noted(docs: DocumentStore) -> None:
    vectors = OfOwnIds(EMBEDDING)
    parents = ParentDocuments(docs, vectors)

    parents.put([split("a.txt", "one|two"), split("b.txt", "three")])
    parents.delete(["a.txt"])

    assert child_texts(vectors) == ["three"]


class Refusing(InMemoryVectorStore):
    """Says that it does not delete."""

    def delete(self, ids: Any = None, **kwargs: Any) -> Any:
        return False

    async def adelete(self, ids: Any = None, **kwargs: Any) -> Any:
        return False


def test_a_vector_store_that_says_it_does_not_delete_is_believed(docs: DocumentStore, call: Any) -> None:
    vectors = Refusing(EMBEDDING)
    parents = ParentDocuments(docs, vectors)
    call(parents.put, [split("a.txt", "one|two")])
    told = "did not delete {} children. Their parents still name them: repeat the call once it can"
    with pytest.raises(UnsupportedError, match=told.format(2)):
        call(parents.put, [split("a.txt", "new")])
    with pytest.raises(UnsupportedError, match=told.format(3)):
        call(parents.delete, ["a.txt"])

    able = vector_store()
    able.store.update(vectors.store)
    call(ParentDocuments(docs, able).delete, ["a.txt"])  # as told
    assert able.store == {}


class Strict(InMemoryVectorStore):
    """Deletes all or nothing, and nothing where one is missing, as FAISS does; fails when told to.

    Attributes:
        fails: the names of the methods that fail.
    """

    fails: frozenset[str] = frozenset()

    def add_documents(self, documents: Any, ids: Any = None, **kwargs: Any) -> list[str]:
        self._fail("add")
        return super().add_documents(documents, ids)

    async def aadd_documents(self, documents: Any, ids: Any = None, **kwargs: Any) -> list[str]:
        return self.add_documents(documents, ids)

    def delete(self, ids: Any = None, **kwargs: Any) -> Any:
        self._fail("delete")
        if not self.store.keys() >= set(ids):
            raise ValueError("some ids do not exist")
        super().delete(ids)

    async def adelete(self, ids: Any = None, **kwargs: Any) -> Any:
        self.delete(ids)

    def get_by_ids(self, ids: Any, /) -> list[Document]:
        self._fail("get_by_ids")
        return super().get_by_ids(ids)

    async def aget_by_ids(self, ids: Any, /) -> list[Document]:
        return self.get_by_ids(ids)

    def _fail(self, name: str) -> None:
        if name in self.fails:
            raise ConnectionError(name)


def test_a_vector_store_that_refuses_what_is_missing_is_put_right_by_the_same_call(
    docs: DocumentStore, call: Any
) -> None:
    vectors = Strict(EMBEDDING)
    parents = ParentDocuments(docs, vectors)
    for family in (split("a.txt", "one|two"), split("a.txt", "three")):
        vectors.fails = frozenset({"add"})
        for _ in range(2):
            with pytest.raises(ConnectionError, match="add"):
                call(parents.put, [family])
        vectors.fails = frozenset()
        call(parents.put, [family])
        assert child_texts(vectors) == sorted(family[1].page_content.split("|"))

    vectors.delete(list(vectors.store))  # as of a call that ended before the parent was removed
    call(parents.delete, ["a.txt"])
    assert docs.count() == 0


def test_where_it_does_not_say_what_is_missing_its_own_error_is_raised(docs: DocumentStore, call: Any) -> None:
    vectors = Strict(EMBEDDING)
    parents = ParentDocuments(docs, vectors)
    call(parents.put, [split("a.txt", "one|two")])
    vectors.fails = frozenset({"delete"})
    with pytest.raises(ConnectionError, match="delete"):  # all are there
        call(parents.delete, ["a.txt"])
    vectors.fails = frozenset({"get_by_ids"})
    del vectors.store[min(vectors.store)]
    with pytest.raises(ValueError, match="some ids do not exist"):
        call(parents.delete, ["a.txt"])
    assert docs.count() == len(vectors.store) == 1
    vectors.fails = frozenset()
    call(parents.delete, ["a.txt"])
    assert docs.count() == len(vectors.store) == 0


def of_no_document(parents: ParentDocuments) -> None:
    parents.put([split("a.txt", "one"), ("b.txt", Document("x"), ["text"])])  # type: ignore[list-item]


def of_metadata(parents: ParentDocuments) -> None:
    parents.put([split("a.txt", "one"), ("b.txt", Document("x", metadata={"m": object()}), [Document("x")])])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(of_no_document, "A child of 'b.txt' is no Document but str"), (of_metadata, r"key 'b.txt' holds at .*\['m'\]")],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_stored(
    docs: DocumentStore, wrong: Callable[[ParentDocuments], None], told: str
) -> None:
    vectors = vector_store()
    with pytest.raises(InvalidValueError, match=told):
        wrong(ParentDocuments(docs, vectors))

    assert vectors.store == {}
    assert docs.count() == 0


def test_parents_that_expire_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ttl_s: .* children it had.* Make the DocumentStore without ttl_s"):
        ParentDocuments(DocumentStore("kv", "memory:notes", ttl_s=10), vector_store())
    for forever in (None, math.inf):
        parents = ParentDocuments(DocumentStore("kv", "memory:notes", ttl_s=forever), vector_store())
        parents.put([split("a.txt", "one")])
        parents.delete(["a.txt"])


def test_only_a_document_store_notes_children() -> None:
    with pytest.raises(UsageError, match=r"must be a DocumentStore, got .*KVStore: give DocumentStore\(\.\.\.\)"):
        ParentDocuments(KVStore("kv", "memory:notes"), vector_store())  # type: ignore[arg-type]
    ParentDocuments(DocumentStore("kv", "memory:notes"), vector_store()).put([split("a.txt", "one")])

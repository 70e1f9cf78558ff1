"""LangChain's own standard tests for stores: sync and async, both stores, every place."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests

from langchain_kv import AstraDBByteStore, AstraDBStore, DocumentStore


class TestJSONSync(BaseStoreSyncTests[Any]):
    @pytest.fixture
    def kv_store(self, place: Any) -> BaseStore[str, Any]:
        return place.store(AstraDBStore)

    @pytest.fixture
    def three_values(self) -> tuple[Any, Any, Any]:
        return {"a": [1, 2.5, None]}, "text", 7


class TestJSONAsync(BaseStoreAsyncTests[Any]):
    @pytest.fixture
    async def kv_store(self, place: Any) -> BaseStore[str, Any]:
        return place.store(AstraDBStore)

    @pytest.fixture
    def three_values(self) -> tuple[Any, Any, Any]:
        return {"a": [1, 2.5, None]}, "text", 7


class TestBytesSync(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, place: Any) -> BaseStore[str, bytes]:
        return place.store(AstraDBByteStore)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", b"\x00\xff"


class TestBytesAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, place: Any) -> BaseStore[str, bytes]:
        return place.store(AstraDBByteStore)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", b"\x00\xff"


class TestDocumentsSync(BaseStoreSyncTests[Document]):
    @pytest.fixture
    def kv_store(self, place: Any) -> BaseStore[str, Document]:
        return place.store(DocumentStore)

    @pytest.fixture
    def three_values(self) -> tuple[Document, Document, Document]:
        return Document("one"), Document("two", id="2"), Document("three", metadata={"n": 3})


class TestDocumentsAsync(BaseStoreAsyncTests[Document]):
    @pytest.fixture
    async def kv_store(self, place: Any) -> BaseStore[str, Document]:
        return place.store(DocumentStore)

    @pytest.fixture
    def three_values(self) -> tuple[Document, Document, Document]:
        return Document("one"), Document("two", id="2"), Document("three", metadata={"n": 3})

"""``lckv import-from`` with what the archived stores wrote to a MongoDB."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_kv import DocumentStore, KVByteStore
from langchain_kv.cli.main import run

BLOBS = [("a", b"1"), ("b", bytes(range(256)))]
DOCUMENTS = [("a", Document("one", id="x", metadata={"n": 1})), ("b", Document("two"))]


@pytest.mark.parametrize(
    ("name", "kind", "pairs"), [("MongoDBByteStore", KVByteStore, BLOBS), ("MongoDBStore", DocumentStore, DOCUMENTS)]
)
def test_what_the_archived_stores_wrote_is_taken(
    server_url: str, raw: Any, tmp_path: Path, name: str, kind: Any, pairs: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they warn of their end
        from langchain_community.storage import mongodb
    raw.drop_collection("left")
    theirs = getattr(mongodb, name)(server_url, "default_keyspace", "left")
    theirs.mset(pairs)
    theirs.client.close()
    url = server_url.replace("/?", "/default_keyspace?")
    to = f"sqlite:{tmp_path / 'kv.db'}"

    assert run(["import-from", url, to, "--layout", "mongodb", "--name", "left", "--collection", "kv"]) == 0
    with kind("kv", to) as store:
        assert store.mget([key for key, _ in pairs]) == [value for _, value in pairs]

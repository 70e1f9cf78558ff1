"""What the messages about SQL databases tell to do, done."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_kv import (
    BackendOptions,
    ConfigError,
    InvalidValueTypeError,
    KVByteStore,
    KVStore,
    StoreClosedError,
    StoreError,
    UnsupportedError,
)
from langchain_kv.backends.sql_rows import RacedError, Rows
from langchain_kv.backends.sql_tables import OURS
from langchain_kv.errors import UnknownCollectionError
from langchain_kv.places.schemes import parse_url
from langchain_kv.stores.sql import SQLStore


def test_a_database_of_its_own_takes_what_one_store_refuses(tmp_path: Path) -> None:
    path = tmp_path / "kv.db"
    store = SQLStore(namespace="a", db_url=f"sqlite:///{path}")
    with pytest.raises(UnknownCollectionError, match="create_schema"):
        store.mget(["k"])
    store.create_schema()
    assert store.mget(["k"]) == [None]
    with pytest.raises(UnsupportedError, match="or use KVByteStore on this database"):
        store.mset([("k", b"1")], ttl_s=60)
    with KVByteStore("kv", f"sqlite+sqlalchemy:{path}") as other:
        other.mset([("k", b"1")], ttl_s=60)
        assert other.mget(["k"]) == [b"1"]
    store.mset([("k", b"1")])
    with pytest.raises(InvalidValueTypeError, match="delete the key instead"):
        store.mset([("k", None)])  # type: ignore[list-item]
    store.mdelete(["k"])
    assert store.mget(["k"]) == [None]
    store.close()
    with pytest.raises(StoreClosedError):
        store.mget(["k"])
    with SQLStore(namespace="a", db_url=f"sqlite:///{path}") as again:
        assert again.mget(["k"]) == [None]


def test_the_path_of_a_file_is_what_the_url_wants(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the path of a file"):
        KVStore("kv", "sqlite+sqlalchemy:")
    with KVStore("kv", f"sqlite+sqlalchemy:{tmp_path / 'kv.db'}") as store:
        assert store.mget(["a"]) == [None]


def test_a_url_of_another_form_is_told_the_right_one() -> None:
    options = BackendOptions("kv", "default_keyspace")
    with pytest.raises(ConfigError, match="with the name of a database") as caught:
        parse_url("postgresql://localhost")
    right = str(caught.value).partition("Write ")[2].partition(",")[0]
    with pytest.raises(ConfigError, match=r"is no URL that SQLAlchemy takes .*write postgresql://"):
        parse_url(right).open(options)  # its PORT is none
    parse_url(right.replace("PORT", "5432")).open(options).close()


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ConfigError, match="not in oracle: use one of them"):
        Rows(OURS, "kv", "oracle", "oracle://h")
    assert Rows(OURS, "kv", "sqlite", "sqlite://").key_max_bytes == 8_000


def test_a_call_that_others_win_against_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(*_: object) -> None:
        raise RacedError

    with KVStore("kv", f"sqlite+sqlalchemy:{tmp_path / 'kv.db'}") as store:
        monkeypatch.setattr(Rows, "put", overtaken)
        with pytest.raises(StoreError, match="repeat the call later") as caught:
            store.mset([("a", 1)])
        assert caught.value.retryable
        monkeypatch.undo()
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]

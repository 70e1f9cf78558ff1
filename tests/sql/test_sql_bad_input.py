"""What a SQL database may refuse: who asks, where it is, what is in it, how much of it."""

from __future__ import annotations

import importlib.util
import random
import re
import socket
import string
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from cassandra_node import free_ports
from installed import need
from langchain_kv import (
    AuthError,
    CollectionConflictError,
    ConfigError,
    ConnectError,
    InvalidKeyError,
    InvalidValueError,
    KVByteStore,
    KVStore,
    SQLPlace,
    UnknownCollectionError,
)
from langchain_kv.backends.sql_tables import KEY_MAX_BYTES
from langchain_kv.stores.sql import SQLStore
from sql_servers import alchemy_url


def test_a_wrong_password_is_told_without_showing_it(network: str) -> None:
    with pytest.raises(AuthError, match="Check user and password") as caught:
        KVStore("kv", network.replace("secret-of-kv", "wrong-secret"))
    assert "wrong-secret" not in f"{caught.value} {caught.value!r}"
    assert caught.value.applied is False
    KVStore("kv", network).close()


def test_a_host_that_does_not_answer_is_named(network: str) -> None:
    url = re.sub(r":\d+/", f":{free_ports('127.0.0.1', 1)[0]}/", network)
    with pytest.raises(ConnectError, match=r"No connection to .*127\.0\.0\.1") as caught:
        KVStore("kv", url)
    assert caught.value.retryable
    assert "secret-of-kv" not in str(caught.value)
    KVStore("kv", network).close()


def test_a_table_of_another_shape_is_refused_and_left_alone(tmp_path: Any) -> None:
    url = f"sqlite+sqlalchemy:{tmp_path / 'kv.db'}"
    engine = create_engine(alchemy_url(url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE langchain_kv (id INTEGER)"))
    with pytest.raises(CollectionConflictError, match=r"langchain_kv .* lacks the columns expires_at, key, kind"):
        KVStore("kv", url)
    KVStore("kv", f"sqlite+sqlalchemy:{tmp_path / 'other.db'}").close()
    engine.dispose()


def test_a_table_that_is_missing_is_told(tmp_path: Any) -> None:
    with SQLStore(namespace="a", db_url=f"sqlite:///{tmp_path / 'kv.db'}") as store:
        with pytest.raises(UnknownCollectionError, match=r"create_schema\(\)"):
            store.mget(["a"])


def test_a_missing_table_is_told_on_servers_too(network: str) -> None:
    engine = create_engine(alchemy_url(network).replace("asyncpg", "psycopg").replace("asyncmy", "pymysql"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS langchain_key_value_stores"))
    engine.dispose()
    with SQLStore(namespace="a", db_url=alchemy_url(network)) as store:
        for call in (lambda: store.mget(["a"]), lambda: store.mset([("a", b"1")]), lambda: list(store.yield_keys())):
            with pytest.raises(UnknownCollectionError, match=r"create_schema\(\)"):
                call()


@pytest.fixture
def blobs(network: str) -> Iterator[KVByteStore]:
    with closing(KVByteStore(f"c{uuid4().hex[:16]}", network)) as store:
        yield store


def test_the_longest_key_is_kept_whatever_its_text(blobs: KVByteStore) -> None:
    # Of such text no index can compress anything.
    key = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=KEY_MAX_BYTES))
    blobs.mset([(key, b"1")])
    assert list(blobs.yield_keys(prefix=key[:-1])) == [key]
    with pytest.raises(InvalidKeyError, match="2,560"):
        blobs.mset([(key + "x", b"1")])


def test_a_key_that_upstreams_index_cannot_take_is_refused_and_nothing_stored(postgresql: str) -> None:
    key = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=5_000))
    with SQLStore(namespace=uuid4().hex, db_url=alchemy_url(postgresql)) as store:
        store.create_schema()
        store.mset([("x" * 20_000, b"1")])
        assert store.mget(["x" * 20_000]) == [b"1"]
        with pytest.raises(InvalidKeyError, match=r"too long for the table's index.*use a hash"):
            store.mset([("a", b"1"), (key, b"1")])
        assert store.mget(["a"]) == [None]


def test_a_value_that_a_packet_cannot_take_is_refused_by_name(mariadb: str) -> None:
    with SQLStore(namespace=uuid4().hex, db_url=alchemy_url(mariadb)) as store:
        store.create_schema()
        with pytest.raises(InvalidValueError, match=r"'large'.*limit is 8,380,416.*max_allowed_packet"):
            store.mset([("a", b"1"), ("large", bytes(8_380_417))])
        store.mset([("large/1", bytes(4_000_000)), ("large/2", bytes(4_380_417))])
        store.mset([("fits", bytes(8_380_416))])
        assert store.mget(["a", "fits"]) == [None, bytes(8_380_416)]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql:kv", "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://host", "with the name of a database"),
        ("sqlite+sqlalchemy:", "sqlite+sqlalchemy:PATH"),
        ("sqlite+sqlalchemy::memory:", "sqlite+sqlalchemy:PATH"),
        ("mysql://u:hun[ter2@h/db", "percent-encoded"),
    ],
)
def test_a_url_that_names_no_database_is_told_what_to_write(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        KVStore("kv", url)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mysql+asyncmy", "postgresql+psycopg", "postgresql+asyncpg"])
def test_a_parameter_that_the_driver_does_not_take_is_told(scheme: str) -> None:
    need("" if importlib.util.find_spec(scheme.partition("+")[2]) else "the driver is not installed")
    with pytest.raises(ConfigError, match=r"does not take.*['\"]nonsense['\"]") as caught:
        KVStore("kv", f"{scheme}://u:hunter2@127.0.0.1:1/db?nonsense=s3cret")
    assert not {"hunter2", "s3cret"} & set(re.split(r"\W", str(caught.value)))


@pytest.mark.parametrize(
    ("scheme", "parameter"),
    [
        *(("postgresql+psycopg", each) for each in ("connect_timeout=abc", "sslmode=abc", "keepalives=abc")),
        *(("postgresql+psycopg", each) for each in ("port=99999", "hostaddr=999.1.1.1", "channel_binding=abc")),
        ("postgresql+asyncpg", "timeout=abc"),
        ("mysql+pymysql", "charset=abc"),
    ],
)
def test_a_value_that_the_driver_does_not_take_is_wrong_usage(scheme: str, parameter: str) -> None:
    need("" if importlib.util.find_spec(scheme.partition("+")[2]) else "the driver is not installed")
    with pytest.raises(ConfigError, match="The driver does not take the URL"):
        KVStore("kv", f"{scheme}://u:hunter2@127.0.0.1:1/db?{parameter}")


@pytest.mark.parametrize("parameter", ["", "?host=/nowhere", "?client_encoding=utf8"])
def test_a_server_that_is_not_there_is_no_wrong_usage(parameter: str) -> None:
    need("" if importlib.util.find_spec("psycopg") else "the driver is not installed")
    with pytest.raises(ConnectError):
        KVStore("kv", f"postgresql+psycopg://u:p@127.0.0.1:1/db{parameter}")


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mysql+asyncmy", "postgresql+psycopg", "postgresql+asyncpg"])
def test_a_server_that_ends_while_it_is_connected_to_is_no_connection(scheme: str) -> None:
    need("" if importlib.util.find_spec(scheme.partition("+")[2]) else "the driver is not installed")

    def reset_all() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=reset_all, daemon=True).start()
        for _ in range(100):  # a driver sees it in one of several places
            with pytest.raises(ConnectError) as caught:
                KVStore("kv", f"{scheme}://u:hunter2@127.0.0.1:{listener.getsockname()[1]}/db")
            assert caught.value.applied is False
            assert caught.value.retryable
        listener.shutdown(socket.SHUT_RDWR)


def test_a_place_shows_no_password() -> None:
    place = SQLPlace("postgresql+psycopg://kv:p@s?s:word@h/db?password=x")
    assert place.shown == "postgresql+psycopg://kv:***@h/db"
    assert "word" not in repr(place)


def test_another_kind_of_database_is_refused() -> None:
    class Dialect:
        name = "oracle"

    class Engine:
        dialect = Dialect

        class url:
            @staticmethod
            def render_as_string() -> str:
                return "oracle://h/x"

    with pytest.raises(ConfigError, match="not in oracle"):
        KVStore("kv", SQLPlace(Engine()))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes a URL, an Engine or an AsyncEngine"):
        KVStore("kv", SQLPlace(object()))  # type: ignore[arg-type]

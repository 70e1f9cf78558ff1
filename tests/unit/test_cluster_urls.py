"""What cassandra: URLs say, what is refused, and that nothing shows the password."""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_kv import KVStore
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import AuthError, ConfigError
from langchain_kv.limits import DEADLINE_S
from langchain_kv.places.arguments import resolve
from langchain_kv.places.clusters import ClusterPlace
from langchain_kv.places.schemes import parse_url

SECRET = "s3cr:et@/?"
URL = "cassandra://me:s3cr%3Aet%40%2F%3F@one,two:9043/ks"


def cluster(url: str) -> ClusterSettings:
    place = parse_url(url)
    assert isinstance(place, ClusterPlace)
    return place.settings


def test_hosts_port_login_and_keyspace() -> None:
    place = parse_url(URL)
    assert place == ClusterPlace(ClusterSettings(("one", "two"), 9043, "me", SECRET), "ks")
    assert (place.shown, place.keyspace) == ("cassandra:one,two:9043", "ks")


def test_defaults() -> None:
    assert cluster("cassandra://localhost") == ClusterSettings(("localhost",), 9042)
    assert cluster("CASSANDRA://localhost/") == ClusterSettings(("localhost",), 9042)
    assert cluster("cassandra://me@localhost").password is None


def test_every_parameter(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    query = (
        "local_dc=dc1&consistency=QUORUM&connect_timeout_s=1.5&request_timeout_s=2&in_chunk=7&replication=2"
        f"&ca_file={file}&cert_file={file}&key_file={file}&verify_hostname=false"
    )
    assert cluster(f"cassandra://h/?{query}") == ClusterSettings(
        ("h",),
        local_dc="dc1",
        consistency="quorum",
        connect_timeout_s=1.5,
        request_timeout_s=2,
        in_chunk=7,
        replication=2,
        ssl=True,
        ca_file=str(file),
        cert_file=str(file),
        key_file=str(file),
        verify_hostname=False,
    )


def test_addresses_of_version_6() -> None:
    found = cluster("cassandra://[::1],[fe80::2]:9999/")
    assert (found.hosts, found.port) == (("::1", "fe80::2"), 9999)
    assert found.shown() == "[::1],[fe80::2]:9999"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("cassandra:localhost", "form"),
        ("cassandra://", "host"),
        ("cassandra://a,,b", "host"),
        ("cassandra://a b", "host"),
        ("cassandra://<host>", "host"),
        ("cassandra://a:1,b:2", "ports"),
        ("cassandra://a:0", "port"),
        ("cassandra://a:65536", "port"),
        ("cassandra://a:\u0663", "port"),
        ("cassandra://a:http", "port"),
        ("cassandra://:s3cret@a", "user"),
        ("cassandra://a/my-keyspace", "keyspace"),
        ("cassandra://a/b/c", "keyspace"),
        ("cassandra://a?sl=true", "local_dc"),
        ("cassandra://a?ssl=yes", "ssl"),
        ("cassandra://a?in_chunk=0", "in_chunk"),
        ("cassandra://a?in_chunk=1.5", "in_chunk"),
        ("cassandra://a?request_timeout_s=nan", "request_timeout_s"),
        ("cassandra://a?request_timeout_s=", "request_timeout_s"),
        ("cassandra://a?consistency=one", "local_quorum"),
        ("cassandra://a?local_dc=", "local_dc"),
        ("cassandra://a?ca_file=/nowhere/at/all", "/nowhere/at/all"),
        ("cassandra://a?key_file=" + __file__, "cert_file"),
        (f"cassandra://a?ssl=false&ca_file={__file__}", "ssl"),
    ],
)
def test_what_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["cassandra://u:secret?x@h/ks", "cassandra://u:secret", "cassandra://u:sec ret@h,", "cassandra://u:x?secret@h"],
)
def test_a_password_in_a_wrong_url_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert "sec" not in str(caught.value)


def test_the_keyspace_of_the_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", "from_environment")
    assert resolve("kv", parse_url(URL), keyspace="argument").keyspace == "ks"
    assert resolve("kv", parse_url("cassandra://a"), keyspace="argument").keyspace == "argument"
    assert resolve("kv", parse_url("cassandra://a")).keyspace == "from_environment"


def test_nothing_shows_the_password() -> None:
    place = parse_url(URL)
    for shown in (repr(place), str(place), place.shown, repr(cluster(URL)), repr(resolve("kv", place))):
        assert "s3cr" not in shown
    assert b"s3cr" not in pickle.dumps(place.without_secrets())


def test_a_pickled_store_takes_the_password_from_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = parse_url(URL)
    stripped = place.without_secrets()
    assert stripped.with_secrets() == stripped
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "cassandra://me:other@elsewhere/ks")
    assert stripped.with_secrets() == stripped
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", URL)
    assert stripped.with_secrets() == place


@pytest.mark.parametrize(
    ("error", "advice"),
    [(ImportError("no"), r"langchain-kv\[cassandra\]"), (RuntimeError("no event loop"), "libev")],
)
def test_a_driver_that_is_missing_or_broken_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str
) -> None:
    from langchain_kv import KVStore

    real = builtins.__import__

    def fails(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cassandra"):
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(ConfigError, match=advice):
        KVStore("kv", "cassandra://localhost")


# -- a store that was unpickled ---------------------------------------------------------------------------------------


def test_a_login_without_its_password_says_what_a_pickle_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cassandra")
    from cassandra import AuthenticationFailed

    from langchain_kv.engines.cassandra.failures import not_connected

    monkeypatch.delenv("ASTRA_DB_API_ENDPOINT", raising=False)
    store = KVStore("kv", URL, setup_mode="OFF")
    there = pickle.loads(pickle.dumps(store))
    told = not_connected(AuthenticationFailed("no"), there._place.settings)
    assert isinstance(told, AuthError)
    assert "a pickle carries none" in str(told)
    assert "ASTRA_DB_API_ENDPOINT" in str(told)

    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", URL)  # the advice
    advised = pickle.loads(pickle.dumps(store))._place.settings
    assert advised == cluster(URL)
    assert "check user and password" in str(not_connected(AuthenticationFailed("no"), cluster(URL)))
    for each in (store, there):
        each.close()


def test_a_bundle_without_a_token_says_what_a_pickle_lacks() -> None:
    pytest.importorskip("cassandra")
    from cassandra import AuthenticationFailed

    from langchain_kv.engines.cassandra.failures import not_connected

    told = not_connected(AuthenticationFailed("no"), ClusterSettings((), bundle="/bundle.zip"))
    assert "ASTRA_DB_APPLICATION_TOKEN" in str(told)
    assert "a pickle carries no token" in str(told)


@pytest.mark.parametrize(("url", "made"), [("cassandra://h/mine", "mine"), ("cassandra://h", "default_keyspace")])
def test_a_server_makes_the_keyspace_that_the_url_names_and_no_other(
    url: str, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_kv.cli import main
    from langchain_kv.cli.commands import serve
    from langchain_kv.server.http import running

    keyspaces: list[str] = []
    engine = SimpleNamespace(create_keyspace=keyspaces.append, keeps_bytes=False)
    monkeypatch.setattr(ClusterPlace, "acquire_engine", lambda place: engine)
    monkeypatch.setattr(serve, "release_engine", lambda engine: None)
    monkeypatch.setattr(running, "serve", lambda *_: None)
    assert main.run(["serve", "--db", url, "--port", "0"]) == 0
    assert keyspaces == [made]


def test_a_stores_deadline_reaches_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cassandra")
    with KVStore("kv", "cassandra://h", setup_mode="OFF", deadline_s=7) as store:
        settings = store._backend._engine._settings  # type: ignore[attr-defined]
        assert (settings.deadline_s, settings.connect_timeout_s, settings.request_timeout_s) == (7, 7, 7)
    with KVStore("kv", "cassandra://h", setup_mode="OFF") as store:
        settings = store._backend._engine._settings  # type: ignore[attr-defined]
        assert (settings.deadline_s, settings.connect_timeout_s, settings.request_timeout_s) == (DEADLINE_S, 10, 10)
    with pytest.raises(ConfigError, match="deadline_s"):
        cluster("cassandra://h/?deadline_s=5")

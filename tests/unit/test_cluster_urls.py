"""What cassandra: URLs say, what is refused, and that nothing shows the password."""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path
from typing import Any

import pytest

from langchain_kv.clusters import ClusterSettings
from langchain_kv.errors import ConfigError
from langchain_kv.targets import parse_target, resolve

SECRET = "s3cr:et@/?"
URL = "cassandra://me:s3cr%3Aet%40%2F%3F@one,two:9043/ks"


def cluster(url: str) -> ClusterSettings:
    found = parse_target(url).cluster
    assert found is not None
    return found


def test_hosts_port_login_and_keyspace() -> None:
    target = parse_target(URL)
    assert target.cluster == ClusterSettings(("one", "two"), 9043, "me", SECRET)
    assert (target.kind, target.location, target.keyspace) == ("cassandra", "one,two:9043", "ks")


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
        parse_target(url)
    assert "s3cret" not in str(caught.value)


def test_the_keyspace_of_the_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", "from_environment")
    assert resolve("kv", URL, keyspace="argument").keyspace == "ks"
    assert resolve("kv", "cassandra://a", keyspace="argument").keyspace == "argument"
    assert resolve("kv", "cassandra://a").keyspace == "from_environment"


def test_nothing_shows_the_password() -> None:
    settings = resolve("kv", URL)
    for shown in (repr(settings), str(settings), repr(settings.target), repr(settings.target.cluster)):
        assert "s3cr" not in shown
    assert b"s3cr" not in pickle.dumps(settings.without_secrets())


def test_a_pickled_store_takes_the_password_from_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolve("kv", URL)
    stripped = settings.without_secrets()
    assert stripped.with_token_from_environment() == stripped
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "cassandra://me:other@elsewhere/ks")
    assert stripped.with_token_from_environment() == stripped
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", URL)
    assert stripped.with_token_from_environment() == settings


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

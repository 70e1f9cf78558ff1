"""The proxies of the environment, as upstream's client uses them, and its certificates."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from faults.forward_proxy import ForwardProxy, forward_proxy
from faults.test_security import Server, certificates, tls_server  # noqa: F401 - fixtures
from langchain_kv import ConfigError, ConnectError, KVStore
from langchain_kv.backends.dataapi.proxies import proxy_for
from places import Place

NAME = "database.inside.invalid"


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with forward_proxy() as running:
        yield running


def store_behind(proxy: ForwardProxy, place: Place, **arguments: Any) -> Any:
    proxy.names[NAME] = int(place.url.rpartition(":")[2])
    return KVStore("kv", f"http://{NAME}", **{**place.arguments, "deadline_s": 5, **arguments})


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_requests_go_through_the_proxy_of_the_environment(
    proxy: ForwardProxy, http_place: Place, face: Any, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    store = face(store_behind(proxy, http_place))
    store.mset([("a", 1)])
    assert store.mget(["a"]) == [1]
    assert store.keys() == ["a"]
    assert {target for _, target in proxy.asked} == {
        f"http://{NAME}/v1/default_keyspace",
        f"http://{NAME}/v1/default_keyspace/kv",
    }
    store.close()


def test_a_proxy_is_told_user_and_password_with_each_request(
    proxy: ForwardProxy, http_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//us%40er:p%3Ass@"))
    with store_behind(proxy, http_place) as store:
        for n in range(3):  # on one connection
            store.mset([("a", n)])
    expected = "Basic " + base64.b64encode(b"us@er:p:ss").decode()
    assert set(proxy.logins) == {expected}


def test_https_goes_through_a_tunnel_that_the_proxy_cannot_look_into(
    proxy: ForwardProxy,
    tls_server: Server,  # noqa: F811
    certificates: Path,  # noqa: F811
    face: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:secret@"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    url = f"https://localhost:{tls_server.server_port}"
    store = face(KVStore("kv", url, token="t", setup_mode="OFF", deadline_s=5))
    assert store.mget(["a"]) == [1]
    assert store.mget(["a"]) == [1]
    assert set(proxy.asked) == {("CONNECT", f"localhost:{tls_server.server_port}")}
    assert set(proxy.logins) == {"Basic " + base64.b64encode(b"user:secret").decode()}
    assert set(tls_server.tokens) == {"t"}
    store.close()


def test_a_proxy_may_itself_speak_tls(
    tls_server: Server,  # noqa: F811
    certificates: Path,  # noqa: F811
    face: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with forward_proxy(context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        url = f"https://localhost:{tls_server.server_port}"
        store = face(KVStore("kv", url, token="t", setup_mode="OFF", deadline_s=5))
        assert store.mget(["a"]) == [1]
        assert [method for method, _ in proxy.asked] == ["CONNECT"]
        store.close()


def test_the_files_of_trusted_authorities_are_read_when_a_store_is_made(
    tls_server: Server,  # noqa: F811
    certificates: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"https://localhost:{tls_server.server_port}"

    def read() -> Any:
        with KVStore("kv", url, setup_mode="OFF", deadline_s=5) as store:
            return store.mget(["a"])

    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "other.pem"))
    with KVStore("kv", url, setup_mode="OFF", deadline_s=5) as other:  # keeps its connections
        with pytest.raises(ConnectError, match="have SSL_CERT_FILE name a PEM file"):
            other.mget(["a"])
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
        assert read() == [1]
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(ConnectError, match="SSL_CERT_FILE"):
        read()


def test_no_proxy_goes_straight(proxy: ForwardProxy, http_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http_place.store().mset([("a", 1)])
    assert proxy.asked == []


def test_a_netrc_file_is_not_read(
    proxy: ForwardProxy, http_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password from-netrc\ndefault login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with store_behind(proxy, http_place) as store:
        store.mset([("a", 1)])
    assert set(proxy.logins) == {None}


@pytest.mark.parametrize(("status", "says"), [(407, "give user and password in its URL"), (403, "ask who runs it")])
def test_a_proxy_that_refuses_is_named_without_its_password(
    proxy: ForwardProxy, face: Any, monkeypatch: pytest.MonkeyPatch, status: int, says: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:secret-word@"))
    proxy.refuses = status
    store = face(KVStore("kv", f"https://{NAME}", setup_mode="OFF", deadline_s=5))
    with pytest.raises(ConnectError, match=f"The proxy {proxy.url} of HTTPS_PROXY .*HTTP {status}.*{says}") as caught:
        store.mset([("a", 1)])
    assert (caught.value.applied, caught.value.retryable) == (False, False)
    assert "secret-word" not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"
    assert len(proxy.asked) == 1
    store.close()


def test_a_plain_request_that_the_proxy_asks_a_login_for_says_so(
    proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    proxy.refuses = 407
    with KVStore("kv", f"http://{NAME}", setup_mode="OFF", deadline_s=5) as store:
        with pytest.raises(ConnectError, match="of HTTP_PROXY refused the request"):
            store.mget(["a"])


def test_a_proxy_that_is_not_there_is_named(face: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"user:secret-word@127.0.0.1:{port}")
        store = face(KVStore("kv", f"http://{NAME}", setup_mode="OFF", deadline_s=0.2))
        with pytest.raises(ConnectError, match=f"proxy http://127.0.0.1:{port}: check HTTP_PROXY") as caught:
            store.mget(["a"])
        assert "secret-word" not in str(caught.value)
        store.close()


@pytest.mark.parametrize("named", ["socks5://user:secret-word@h:1", "http://h:99999", "http://", "nonsense://h"])
def test_another_kind_of_proxy_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("ALL_PROXY", named)
    with pytest.raises(ConfigError, match=r"ALL_PROXY.*http://HOST:PORT, or name database") as caught:
        KVStore("kv", f"http://{NAME}", setup_mode="OFF")
    assert "secret-word" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", NAME)
    KVStore("kv", f"http://{NAME}", setup_mode="OFF").close()


URLS = [
    "http://example.com",
    "https://example.com",
    "https://a.example.com:8443",
    "http://notexample.com",
    "http://10.1.2.3",
]
URLS += ["http://[::1]:8181", "http://localhost:8181", "https://EXAMPLE.com", "http://127.0.0.1"]
ENVIRONMENTS = [
    {"HTTP_PROXY": "http://p:1"},
    {"HTTPS_PROXY": "p:1"},
    {"ALL_PROXY": "http://a:1", "https_proxy": "http://p:2"},
    {"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"},
    {"ALL_PROXY": "http://p:1", "NO_PROXY": "example.com"},
    {"ALL_PROXY": "http://p:1", "NO_PROXY": ".example.com"},
    {"ALL_PROXY": "http://p:1", "NO_PROXY": "example.com:8443, localhost"},
    {"ALL_PROXY": "http://p:1", "no_proxy": "*"},
    {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.example.com,10.1.2.3,::1"},
    {"ALL_PROXY": "http://p:1", "NO_PROXY": "http://example.com"},
    {"ALL_PROXY": "http://p:1", "NO_PROXY": " , "},
    {},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_the_proxy_is_the_one_that_httpx_takes(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        for url in URLS:
            pool = getattr(client._transport_for_url(httpx.URL(url)), "_pool")  # noqa: B009
            theirs = getattr(pool, "_proxy_url", None)
            ours = proxy_for(url)
            assert (None if ours is None else ours.url) == (
                None if theirs is None else f"http://{theirs.host.decode()}:{theirs.port}"
            ), url


def test_a_range_of_addresses_goes_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    assert proxy_for("http://10.1.2.3") is None
    assert proxy_for("http://11.1.2.3") is not None


def test_a_proxy_never_shows_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret-word@p:1")
    shown = repr(proxy_for("http://h"))
    assert "secret" not in shown
    assert base64.b64encode(b"user:secret-word").decode() not in shown

"""URLs to places; arguments and environment variables to what is asked of them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_kv.errors import ConfigError
from langchain_kv.places.arguments import place_of, resolve
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.dataapi import DataAPIPlace
from langchain_kv.places.files import FilePlace
from langchain_kv.places.memory import MemoryPlace
from langchain_kv.places.schemes import parse_url

ASTRA = "https://01234567-89ab-cdef-0123-456789abcdef-us-east1.apps.astra.datastax.com"
ASTRA_DEV = ASTRA.replace("astra.", "astra-dev.")


def asked(url: str | None, *, collection: Any = "c", **arguments: Any) -> BackendOptions:
    """Return what a store with these arguments asks of its place."""
    return resolve(collection, place_of(url), **arguments)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("memory:", MemoryPlace("")),
        ("memory:a b", MemoryPlace("a b")),
        ("sqlite:/a/b.db", FilePlace("/a/b.db")),
        ("sqlite:/a/../b%3F%25.db", FilePlace("/b?%.db")),
        ("sqlite:/a?synchronous=normal", FilePlace("/a", "normal")),
        ("sqlite:/a?synchronous=full", FilePlace("/a")),
        ("SQLITE:/a b\u00e9", FilePlace("/a b\u00e9")),
        ("http://localhost:8181/", DataAPIPlace("http://localhost:8181")),
        ("https://h/x/y/", DataAPIPlace("https://h/x/y")),
        ("http://[::1]:1", DataAPIPlace("http://[::1]:1")),
        (ASTRA, DataAPIPlace(ASTRA)),
    ],
)
def test_a_url_names_a_place(url: str, place: Place) -> None:
    assert parse_url(url) == place


def test_a_relative_path_is_made_absolute_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_url("sqlite:kv.db") == FilePlace(str(tmp_path / "kv.db"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_url("sqlite:~/kv.db") == FilePlace(str(tmp_path / "kv.db"))


@pytest.mark.parametrize(
    "text", ["host=h password=hunter2 dbname=x", "Server=h;PWD = hunter2;", "file:x?token=hunter2", "x?secret=hunter2"]
)
def test_a_drivers_own_form_is_told_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not a URL of a place for values\. Give one of:") as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "sqlite:kv.db"),
        ("kv.db", "did you mean sqlite:kv.db?"),
        ("./50%?.db", "did you mean sqlite:./50%25%3F.db?"),
        ("/data/kv.db", "did you mean sqlite:/data/kv.db?"),
        ("C:\\data\\kv.db", "did you mean sqlite:C:\\data\\kv.db?"),
        ("file:///data/kv.db", "did you mean sqlite:/data/kv.db?"),
        ("sqlite3:kv.db", "did you mean sqlite:kv.db?"),
        ("localhost:8181", "did you mean http://localhost:8181?"),
        (ASTRA.removeprefix("https://"), f"did you mean {ASTRA}?"),
        (":memory:", "did you mean memory:?"),
        ("postgres://user:pw@h/db", "postgres:... is not a URL of a place for values: did you mean postgresql:...?"),
        ("memory", "did you mean memory:?"),
        ("ftp://x", "sqlite:kv.db"),
        ("redis:x", "redis://USER"),
        ("redis://user:pw@h:99999", "port"),
        ("redis://[::1", "host"),
        ("valkey://h?cluster=1", "true or false"),
        ("sqlite://kv.db", "sqlite:kv.db"),
        ("sqlite:///kv.db", "Write sqlite:kv.db ("),
        ("sqlite:///a/kv.db", "or sqlite:/a/kv.db for"),
        ("sqlite:////a/kv.db", "Write sqlite:/a/kv.db ("),
        ("sqlite:////a/kv.db?synchronous=normal", "Write sqlite:/a/kv.db?synchronous=normal ("),
        ("sqlite:///C:\\a\\kv.db", "Write sqlite:C:\\a\\kv.db ("),
        ("sqlite:///:memory:", "Write memory: ("),
        ("sqlite://", "Write memory: ("),
        ("sqlite:", "sqlite:PATH"),
        ("sqlite::memory:", "memory:"),
        ("sqlite:a?mode=x", "ro, which only reads"),
        ("sqlite:a?cache=1", "mode=rw|ro"),
        ("sqlite:a?synchronous=off", "normal"),
        ("sqlite:a%00b", "NUL"),
        ("memory://x", "memory:x"),
        ("http://", "host"),
        ("https:///x", "host"),
        ("https://<database id>-<region>.apps.astra.datastax.com", "fill in"),
        ("https://exa mple.com", "fill in"),
        ("http://h:99999", "port"),
        ("http://[::1", "host"),
        ("http://[::1]x", "http://HOST:PORT"),
        ("http://[fe80::1%25lo]:1", "fill in"),
        ("http://a..b", "fill in"),
        ("http://.a:1", "fill in"),
        (f"http://{'a' * 64}.x", "fill in"),
        ("https://user:pw@h", "token"),
        ("https://h?x=1", "https://h"),
        ("cassandra:h/ks", "cassandra://USER"),
        ("redis://u:123/pw@h/1", "percent-encoded"),
        ("redis://u:123?pw@h/1", "percent-encoded"),
        ("mongodb://u:pw/x@127.0.0.1:1/db", "percent-encoded"),
        ("mongodb://u:pw?x@127.0.0.1:1/db", "percent-encoded"),
        ("mongodb://u:123/pw@h/db", "percent-encoded"),
        ("mongodb://u:x@pw/x@h/db", "percent-encoded"),
        ("mongodb://u:pw/x", "percent-encoded"),
    ],
)
def test_a_bad_url_says_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert says in str(caught.value)
    assert "pw" not in str(caught.value)


def test_no_endpoint_lists_the_forms_and_the_variable() -> None:
    with pytest.raises(ValueError, match=r"ASTRA_DB_API_ENDPOINT[\s\S]*sqlite:[\s\S]*memory:[\s\S]*https://"):
        place_of(None)


def test_the_environment_fills_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "http://from-environment")
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "environment-token")
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", " env_ks ")
    assert place_of(None) == DataAPIPlace("http://from-environment")
    options = asked(None)
    assert (options.token, options.keyspace) == ("environment-token", "env_ks")
    assert place_of("http://given") == DataAPIPlace("http://given")
    options = asked("http://given", token="given-token", keyspace="given_ks")
    assert (options.token, options.keyspace) == ("given-token", "given_ks")
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", "  ")
    assert asked(None).keyspace == "default_keyspace"


def test_namespace_and_keyspace_are_one() -> None:
    assert asked("memory:", namespace="n").keyspace == "n"
    assert asked("memory:", namespace="n", keyspace="n").keyspace == "n"
    with pytest.raises(ConfigError, match="two names"):
        asked("memory:", namespace="n", keyspace="k")


@pytest.mark.parametrize("name", ["", "bad-name", "a b", "x" * 49, "\u00e9", None, 5, "a.b", "a\n"])
def test_a_bad_collection_or_keyspace_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="collection name"):
        asked("memory:", collection=name)
    if name is not None:
        with pytest.raises(ConfigError, match="keyspace name"):
            asked("memory:", keyspace=name)


@pytest.mark.parametrize(
    ("endpoint", "environment", "prefix", "is_astra"),
    [
        (ASTRA, None, "/api/json", True),
        (ASTRA_DEV, None, "/api/json", True),
        (ASTRA_DEV, "dev", "/api/json", True),
        ("http://localhost", None, "", False),
        ("http://localhost", "hcd", "", False),
        ("https://astra.example.com", "PROD", "/api/json", True),
    ],
)
def test_astra_gets_its_path_prefix(endpoint: str, environment: str | None, prefix: str, is_astra: bool) -> None:
    place = parse_url(endpoint)
    assert isinstance(place, DataAPIPlace)
    options = asked(endpoint, environment=environment)
    assert (place.path_prefix(options), place.is_astra(options)) == (prefix, is_astra)


def test_a_wrong_environment_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="prod, dev, test"):
        asked("http://h", environment="production")
    with pytest.raises(ConfigError, match="contradicts"):
        parse_url(ASTRA).open(asked(ASTRA, environment="dev"))


class Provider:
    def get_token(self) -> str:
        return "provided"


def test_a_token_is_text_or_something_that_gives_one() -> None:
    source = asked("http://h", token=Provider()).token
    assert callable(source)
    assert source() == "provided"
    assert asked("http://h", token="").token is None
    assert asked("http://h").token is None
    with pytest.raises(ConfigError, match="get_token"):
        asked("http://h", token=5)


def test_the_token_and_the_headers_are_never_shown() -> None:
    api_options = SimpleNamespace(database_additional_headers={"X-Key": "secret-header", "Gone": None})
    options = asked("http://h", token="secret-token", api_options=api_options)
    assert options.headers == {"X-Key": "secret-header"}
    assert "secret" not in repr(options)
    assert "secret" not in str(options.without_secrets().__dict__)


def test_api_options_are_read_by_attributes() -> None:
    options = SimpleNamespace(
        environment="hcd",
        token=Provider(),
        callers=[("app", "1"), ("only", None)],
        ca_cert_path="ca.pem",
        timeout_options=SimpleNamespace(request_timeout_ms=1500, general_method_timeout_ms=0),
        data_api_url_options=SimpleNamespace(api_path="deep/path/", api_version="v1"),
    )
    settings = asked("http://h", api_options=options)
    assert (settings.request_timeout_s, settings.deadline_s) == (1.5, 86_400.0)
    assert (settings.path_prefix, settings.ca_file) == ("/deep/path", "ca.pem")
    assert settings.user_agent.startswith("app/1 only langchain/")
    assert callable(settings.token)
    assert asked("http://h", api_options=options, request_timeout_s=2).request_timeout_s == 2


def test_astrapy_options_left_unset_change_nothing() -> None:
    api_options = pytest.importorskip("astrapy.api_options", reason="astrapy is a dependency of the tests")
    options = api_options.APIOptions(timeout_options=api_options.TimeoutOptions(request_timeout_ms=2500))
    settings = asked(ASTRA, api_options=options)
    assert (settings.request_timeout_s, settings.deadline_s) == (2.5, 60.0)
    assert (DataAPIPlace(ASTRA).path_prefix(settings), settings.token, settings.headers) == ("/api/json", None, {})


@pytest.mark.parametrize("callers", ["app", [("a", "b", "c")], [5]])
def test_callers_of_another_form_are_refused(callers: Any) -> None:
    with pytest.raises(ConfigError, match="ext_callers"):
        asked("http://h", ext_callers=callers)


def test_callers_go_first_in_the_user_agent() -> None:
    agent = asked("http://h", ext_callers=["one", ("two", "2"), (None, None), None, "bad\r\nname"]).user_agent
    assert agent.startswith("one two/2 bad??name langchain/")
    assert " langchain_store/" in agent
    assert "langchain-kv/" in agent


@pytest.mark.parametrize("seconds", [0, -1, "5", True, float("nan")])
def test_timeouts_are_positive_seconds(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="request_timeout_s"):
        asked("http://h", request_timeout_s=seconds)


def test_embedded_targets_ask_for_no_token() -> None:
    os.environ["ASTRA_DB_APPLICATION_TOKEN"] = "x"
    try:
        assert asked("memory:").token is None
    finally:
        del os.environ["ASTRA_DB_APPLICATION_TOKEN"]

"""cassandra+bundle: URLs, as far as they can be tried without Astra DB: what they say, and what the driver is given."""

from __future__ import annotations

import json
import pickle
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest

from langchain_kv import KVStore
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import ConfigError, ConnectError
from langchain_kv.places.arguments import resolve
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.clusters import BundlePlace, ClusterPlace
from langchain_kv.places.schemes import parse_url

FILES = {"config.json": json.dumps({"host": "localhost", "port": 1}), "ca.crt": "", "cert": "", "key": ""}


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASTRA_DB_APPLICATION_TOKEN", raising=False)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "secure connect.zip", FILES)


def make_bundle(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return path


def test_path_and_parameters(bundle: Path) -> None:
    place = parse_url(f"cassandra+bundle:{bundle}?consistency=quorum&in_chunk=7")
    assert place == BundlePlace(ClusterSettings((), bundle=str(bundle), consistency="quorum", in_chunk=7))
    assert (place.shown, place.keyspace) == (f"cassandra:{bundle}", "")


def opened(url: str, options: BackendOptions) -> ClusterPlace:
    """Return the place whose engine a store with these options uses."""
    place = parse_url(url)
    assert isinstance(place, BundlePlace)
    return place.with_options(options)


def test_the_token_logs_in_and_is_not_shown(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"cassandra+bundle:{bundle}"
    options = resolve("kv", parse_url(url), token="AstraCS:given", keyspace="ks")
    given = opened(url, options)
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "AstraCS:of-environment")
    overruled = opened(url, options)
    taken = opened(url, resolve("kv", parse_url(url)))
    tokens = ((given, "AstraCS:given"), (overruled, "AstraCS:given"), (taken, "AstraCS:of-environment"))
    for place, token in tokens:
        assert (place.settings.user, place.settings.password) == ("token", token)
        assert "AstraCS" not in repr(place)
        assert b"AstraCS" not in pickle.dumps(place.without_secrets())
    assert "AstraCS" not in repr(options)
    assert b"AstraCS" not in pickle.dumps(options.without_secrets())
    assert options.keyspace == "ks"
    assert taken.without_secrets().with_secrets() == taken


def test_a_token_provider_is_asked(bundle: Path) -> None:
    class Provider:
        def get_token(self) -> str:
            return "AstraCS:provided"

    url = f"cassandra+bundle:{bundle}"
    assert opened(url, resolve("kv", parse_url(url), token=Provider())).settings.password == "AstraCS:provided"


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("", "PATH"),
        ("//x.zip", "PATH"),
        ("/no/such/file.zip", "names no file"),
        ("{bundle}?ssl=true", "ssl cannot be given"),
        ("{bundle}?local_dc=dc1", "local_dc cannot be given"),
        ("{bundle}?keyspace=ks", "Unknown parameter"),
    ],
)
def test_what_is_refused(bundle: Path, rest: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_url("cassandra+bundle:" + rest.format(bundle=bundle))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "lacks ca.crt, cert, config.json, key"),
        ({"config.json": "{}"}, "lacks ca.crt, cert, key"),
        ({**FILES, "config.json": "{"}, "is not a secure connect bundle"),
        ({**FILES, "config.json": "[]"}, "is not a secure connect bundle"),
        (None, "is not a secure connect bundle"),
    ],
)
def test_a_file_that_is_no_bundle_is_told(tmp_path: Path, files: Any, reason: str) -> None:
    pytest.importorskip("cassandra.cluster", reason="needs cassandra-driver")
    path = tmp_path / "bundle.zip"
    if files is None:
        path.write_text("not a zip")
    else:
        make_bundle(path, files)
    with pytest.raises(ConfigError, match=reason), KVStore("kv", f"cassandra+bundle:{path}") as store:
        store.mget(["a"])


# The driver makes a context of ssl.PROTOCOL_TLS of a bundle's certificates.
@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS is deprecated:DeprecationWarning")
def test_certificates_that_cannot_be_read_are_told_by_the_driver(bundle: Path) -> None:
    pytest.importorskip("cassandra.cluster", reason="needs cassandra-driver")
    with (
        pytest.raises(ConnectError, match=r"secure connect\.zip") as caught,
        KVStore("kv", f"cassandra+bundle:{bundle}", token="AstraCS:secret") as store,
    ):
        store.mget(["a"])
    assert "AstraCS" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS is deprecated:DeprecationWarning")
def test_the_driver_asks_the_service_that_the_bundle_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the request for the database's metadata, which only Astra DB can answer."""
    cloud = pytest.importorskip("cassandra.datastax.cloud", reason="needs cassandra-driver")
    monkeypatch.setattr(cloud, "_ssl_context_from_cert", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = make_bundle(
        tmp_path / "bundle.zip", {**FILES, "config.json": json.dumps({"host": "127.0.0.1", "port": port})}
    )
    with (
        pytest.raises(ConnectError, match=rf"https://127\.0\.0\.1:{port}/metadata") as caught,
        KVStore("kv", f"cassandra+bundle:{path}") as store,
    ):
        store.mget(["a"])
    assert caught.value.applied is False

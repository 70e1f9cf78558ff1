"""Advice on URLs and arguments, followed."""

from __future__ import annotations

import json
import ssl
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from advice.world import Case, World, named, options
from langchain_kv import AstraDBStore, ConnectError
from langchain_kv.places.arguments import place_of, resolve
from langchain_kv.places.schemes import parse_url

ASTRA = "https://01234567-89ab-cdef-0123-456789abcdef-us-east1.apps.astra.datastax.com"
CLUSTER = "cassandra://u:p@h1,h2:9042/ks"


def parsed(url: str) -> Any:
    return lambda w: parse_url(url)


def parses(url: str) -> Any:
    return lambda w, message: parse_url(url)


def opened(**arguments: Any) -> None:
    place = place_of(ASTRA)
    place.open(resolve("c", place, **arguments)).close()


def clash(w: World, **arguments: Any) -> None:
    client = SimpleNamespace(base_url=w.server.url, token=w.server.token)
    AstraDBStore("kv", astra_db_client=client, **arguments).close()


def client_less(w: World) -> None:
    AstraDBStore("kv", astra_db_client=SimpleNamespace()).close()


def pickled(w: World) -> Any:
    place = place_of(w.server.url)
    asked = resolve("kv", place, token="t").without_secrets().with_secrets(place.token_variable)
    return asked.token()  # type: ignore


def unpickled_with_a_token(w: World, message: str) -> None:
    w.patch.setenv(named(r"set (\w+) in", message), "t")
    assert pickled(w) == "t"


def environment_with(w: World, name: str) -> None:
    w.patch.setenv(name, f"sqlite:{w.tmp}/kv.db")
    w.kv(None)  # type: ignore[arg-type]
    w.patch.delenv(name)


def bundle(w: World, *files: str) -> Path:
    path = w.tmp / "bundle.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name in files:
            made.writestr(name, json.dumps({"host": "127.0.0.1", "port": 1}))
    return path


async def asynchronous() -> str:
    return "test-token"


class Provider:
    def __init__(self, token: Any) -> None:
        self._token = token

    def get_token(self) -> Any:
        return self._token() if callable(self._token) else self._token


def trusting(w: World, path: object) -> None:
    w.http(url="https://127.0.0.1:1", deadline_s=0.1, api_options=options(ca_cert_path=str(path)))


def trusted(w: World) -> None:
    path = w.file("ca.pem", ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(binary_form=True)[0]))
    with pytest.raises(ConnectError):  # nobody is there, and nothing was wrong with the file
        trusting(w, path)


CASES = [
    # URLs
    Case("is not a URL of a place for values. Give one of:", parsed("ftp://h"), parses("sqlite:kv.db")),
    Case(
        "is not a URL of a place for values: did you mean",
        lambda w: parse_url("kv%.db"),
        lambda w, m: w.kv(named(r"mean (\S+)\?", m)),
    ),
    Case(
        "A URL must be a string, got a path: write",
        lambda w: w.kv(w.tmp / "k?v.db"),
        lambda w, m: w.kv(named("'(.*)'", m)),
    ),  # type: ignore[arg-type]
    Case(". Give one of:\n", lambda w: parse_url(5), lambda w, m: w.kv("memory:")),  # type: ignore[arg-type]
    Case(
        "as SQLAlchemy reads these slashes",
        parsed("sqlite:////tmp/kv.db"),
        lambda w, m: parse_url(named(r"Write (\S+) ", m)),
    ),
    Case("sqlite: names no file: write sqlite:PATH, or memory:", parsed("sqlite:"), parses("memory:")),
    Case("write a ? in a path as %3F", parsed("sqlite:a?b.db"), lambda w, m: w.kv("sqlite:a%3Fb.db")),
    Case(
        "Write memory:NAME without slashes: memory:", parsed("memory://x"), lambda w, m: w.kv(named(": (memory:.*)", m))
    ),
    Case("is not a host: write", parsed("https://<id>-<region>.x"), parses("https://id-region.x")),
    Case("URL names no host: write", parsed("https:///x"), parses("https://HOST:1")),
    Case(
        "is no Data API, but Upstash's Redis: write",
        parsed("https://eu1-x-1.upstash.io"),
        lambda w, m: parse_url(named(r"write (\S+)\.$", m)),
    ),
    Case(
        "URL is no number up to 65535: write",
        parsed("http://h:99999"),
        lambda w, m: parse_url(named(r"write (\S+) or", m)),
    ),
    Case(
        "must not hold a user or password: give the token as token=",
        lambda w: w.http(url="http://user:pw@h"),
        lambda w, m: w.http(token=w.server.token),
    ),
    Case("takes no ? or # part: write", parsed("http://h/x?y=1"), lambda w, m: parse_url(named(r"write (\S+)\.$", m))),
    Case(
        "Pass api_endpoint= (url= for KVStore) or set",
        lambda w: w.kv(None),
        lambda w, m: [environment_with(w, name) for name in ("LCKV_URL", "ASTRA_DB_API_ENDPOINT")],
    ),  # type: ignore[arg-type]
    # names and the like
    Case(
        "ASCII letters, digits and underscores", lambda w: w.kv(collection="a-b"), lambda w, m: w.kv(collection="a_b")
    ),
    Case(
        "are two names of one thing: give one",
        lambda w: resolve("c", place_of("memory:"), namespace="n", keyspace="k"),
        lambda w, m: resolve("c", place_of("memory:"), keyspace="k"),
    ),
    Case("leave environment out", lambda w: opened(environment="dev"), lambda w, m: opened()),
    Case("got one string: pass [name]", lambda w: w.kv(ext_callers="me"), lambda w, m: w.kv(ext_callers=["me"])),
    Case(
        "The token is not printable ASCII text: check where it comes from",
        lambda w: w.http(token="a\nb"),
        lambda w, m: w.http(),
    ),
    Case("a pickle carries no token: set", pickled, unpickled_with_a_token),
    Case(
        "get_token() is asynchronous: give an object whose get_token() returns the token itself",
        lambda w: w.http(token=Provider(asynchronous)),
        lambda w, m: w.http(token=Provider(w.server.token)),
    ),
    Case("Pass one or the other", lambda w: clash(w, token="t"), lambda w, m: clash(w)),
    Case(
        "pass token= and api_endpoint= instead",
        client_less,
        lambda w, m: AstraDBStore("kv", token=w.server.token, api_endpoint=w.server.url).close(),
    ),
    Case(
        "is not printable ASCII text: check api_options' database_additional_headers",
        lambda w: w.http(api_options=options(database_additional_headers={"X-a": "caf\u00e9"})),
        lambda w, m: w.http(api_options=options(database_additional_headers={"X-a": "cafe"})),
    ),
    Case("): give a PEM file", lambda w: trusting(w, w.file("no.pem", "no")), lambda w, m: trusted(w)),
    # clusters
    Case("URL has a password and no user: write", parsed("cassandra://:p@h"), parses(CLUSTER)),
    Case("in the cassandra: URL is no host: write", parsed("cassandra://u@,h"), parses(CLUSTER)),
    Case("The port of the cassandra: URL is no number up to 65535: write", parsed("cassandra://h:x"), parses(CLUSTER)),
    Case(
        "write a ? in a user or password as %3F", parsed("cassandra://u:p?q@h/ks"), parses("cassandra://u:p%3Fq@h/ks")
    ),
    Case(
        "goes with cert_file=: give both",
        lambda w: parse_url(f"cassandra://h?key_file={w.file('k')}"),
        lambda w, m: parse_url(f"cassandra://h?key_file={w.tmp / 'k'}&cert_file={w.file('c')}"),
    ),
    Case(
        "URL is empty: give a value, or leave it out",
        parsed("cassandra://h?local_dc="),
        parses("cassandra://h?local_dc=dc1"),
    ),
    Case(
        "contradicts ca_file= and cert_file=: leave one out",
        lambda w: parse_url(f"cassandra://h?ssl=false&ca_file={w.file('ca')}"),
        lambda w, m: parse_url(f"cassandra://h?ca_file={w.tmp / 'ca'}"),
    ),
    Case("has no good host or port: write", parsed("redis://h:x"), parses("redis://h:6379")),
    Case("needs redis:, rediss: or valkey: and a host: write", parsed("redis:h"), parses("redis://h")),
    Case(
        "with the path of the secure connect bundle that Astra DB gave you",
        parsed("cassandra+bundle:"),
        lambda w, m: parse_url(f"cassandra+bundle:{bundle(w)}"),
    ),
    Case(
        "Download the database's secure connect bundle there",
        lambda w: parse_url(f"cassandra+bundle:{w.tmp / 'bundle.zip'}"),
        lambda w, m: parse_url(f"cassandra+bundle:{bundle(w)}"),
    ),
]

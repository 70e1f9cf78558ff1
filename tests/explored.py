"""A server with the explorer, in this process, on stores in memory."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from langchain_kv.explorer.app import Explorer
from langchain_kv.explorer.routes import Routes
from langchain_kv.explorer.targets import Target, target_of_engine
from langchain_kv.places.embedded import EmbeddedPlace, release_engine
from langchain_kv.places.schemes import parse_url
from langchain_kv.server.http.app import DataAPI
from langchain_kv.server.http.running import run_app_in_thread

TOKEN = "a-token-of-the-explorer"
_names = itertools.count()


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Explored(NamedTuple):
    """A server with the explorer, and the URL of the stores that it shows."""

    base: str
    url: str

    def send(self, path: str, body: bytes | None = None, method: str = "POST", **headers: str) -> Reply:
        request = urllib.request.Request(self.base + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return Reply(reply.status, _lower(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, _lower(error.headers), error.read())

    def ask(self, route: str, collection: str = "kv", **fields: Any) -> Reply:
        body = json.dumps({"keyspace": "default_keyspace", "collection": collection, **fields}).encode()
        headers = {"Content-Type": "application/json", "Token": TOKEN}
        return self.send(f"/explorer/{route}", body, **headers)


@contextmanager
def exploring(*, edits: bool = False, shown: str | None = None) -> Iterator[Explored]:
    url = f"memory:explored-{next(_names)}"
    place = parse_url(url)
    assert isinstance(place, EmbeddedPlace)
    engine = place.acquire_engine()
    target = target_of_engine(place, engine)
    routes = Routes(target._replace(shown=shown or target.shown), edits=edits)
    app = Explorer(routes, TOKEN, inner=DataAPI(engine, TOKEN))
    try:
        with run_app_in_thread(app) as base:
            yield Explored(base, url)
    finally:
        routes.close()
        release_engine(engine)


@contextmanager
def exploring_target(target: Target) -> Iterator[Explored]:
    routes = Routes(target, edits=False)
    try:
        with run_app_in_thread(Explorer(routes, TOKEN)) as base:
            yield Explored(base, target.shown)
    finally:
        routes.close()

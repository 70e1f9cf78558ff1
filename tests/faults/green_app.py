"""A WSGI application that keeps values in the store that its environment names: what gunicorn's workers run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from langchain_kv import KVStore

store = KVStore("web", os.environ["STORE_URL"], token=os.environ.get("STORE_TOKEN"), deadline_s=30)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Store the path's value under its name, and answer what is stored then."""
    name = environ["PATH_INFO"].strip("/")
    store.mset([(name, len(name))])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(store.mget([name])).encode()]

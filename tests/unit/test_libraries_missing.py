"""A client library or a driver that is not installed is one clear error, which says how to install it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from langchain_kv import BackendOptions, ConfigError, MongoDBClientPlace, RedisClientPlace, SQLPlace
from langchain_kv.places.schemes import parse_url

OPTIONS = BackendOptions("kv", "default_keyspace")


@pytest.mark.parametrize(
    ("module", "extra", "place"),
    [
        ("redis", "redis", lambda: parse_url("redis://localhost")),
        ("redis", "redis", lambda: RedisClientPlace(object())),
        ("pymongo", "mongodb", lambda: parse_url("mongodb://localhost")),
        ("pymongo", "mongodb", lambda: MongoDBClientPlace(object())),  # type: ignore[arg-type]
        ("sqlalchemy", "sql", lambda: parse_url("postgresql+psycopg://localhost/x")),
        ("sqlalchemy", "sql", lambda: SQLPlace("sqlite:///x.db")),
    ],
)
def test_a_library_that_is_missing_is_told(monkeypatch: Any, module: str, extra: str, place: Any) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"need {module}, which .* pip install 'langchain-kv\[{extra}\]'"):
        place().open(OPTIONS)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
def test_a_driver_that_is_missing_is_told(monkeypatch: Any, scheme: str) -> None:
    url = f"{scheme}://u:p@localhost/x"
    for module in ("psycopg", "psycopg2", "asyncpg", "pymysql", "MySQLdb", "asyncmy", "aiomysql"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{scheme}: needs a driver: pip install (psycopg|pymysql) "):
        parse_url(url)
    driver = "psycopg" if scheme == "postgresql" else "pymysql"
    with pytest.raises(ConfigError, match=rf"needs what is not installed: .*{driver}.*Install it with pip") as caught:
        parse_url(url.replace(":", f"+{driver}:", 1)).open(OPTIONS)
    assert ":p@" not in str(caught.value)
    monkeypatch.undo()
    for right in (url, url.replace(":", f"+{driver}:", 1)):
        parse_url(right).open(OPTIONS).close()


def test_langgraph_that_is_missing_is_told() -> None:
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'langgraph':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name: None\n"
        "from langchain_kv import LangGraphStore\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ConfigError: LangGraph's classes need langgraph" in done.stderr
    assert "pip install 'langchain-kv[langgraph]'" in done.stderr

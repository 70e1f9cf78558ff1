"""From a URL to a place: the table of schemes, and those that other packages add.

A package adds a scheme by an entry point of the group ``langchain_kv.places``: its name is the scheme, its object a
function that takes the whole URL and returns a ``Place``. It cannot take the place of a scheme of the table.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from langchain_kv.errors import ConfigError, StoreError
from langchain_kv.places.base import Place
from langchain_kv.places.forms import FORMS
from langchain_kv.runtime.forks import importing
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import exact

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["GROUP", "SCHEMES", "SQL_SCHEMES", "parse_url"]

GROUP: Final = "langchain_kv.places"
"""The group of entry points in which other packages name their schemes."""

SQL_SCHEMES: Final = (
    *("postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"),
    *("mysql", "mysql+pymysql", "mysql+mysqldb", "mysql+asyncmy", "mysql+aiomysql"),
    *("mariadb", "mariadb+pymysql", "mariadb+mysqldb", "mariadb+asyncmy", "mariadb+aiomysql"),
    *("sqlite+sqlalchemy", "sqlite+aiosqlite"),
)
"""SQL databases, and which driver reaches one where the URL says it."""

SCHEMES: Final = {
    "sqlite": "langchain_kv.places.files:parse_file_url",
    "memory": "langchain_kv.places.memory:parse_memory_url",
    "https": "langchain_kv.places.dataapi:parse_http_url",
    "http": "langchain_kv.places.dataapi:parse_http_url",
    "cassandra": "langchain_kv.places.clusters:parse_cluster_url",
    "cassandra+bundle": "langchain_kv.places.clusters:parse_bundle_url",
    **dict.fromkeys(SQL_SCHEMES, "langchain_kv.places.sql:parse_sql_url"),
    "redis": "langchain_kv.places.redis:parse_redis_url",
    "rediss": "langchain_kv.places.redis:parse_redis_url",
    "valkey": "langchain_kv.places.redis:parse_redis_url",
    "mongodb": "langchain_kv.places.mongodb:parse_mongodb_url",
    "mongodb+srv": "langchain_kv.places.mongodb:parse_mongodb_url",
    "upstash+https": "langchain_kv.places.upstash:parse_upstash_url",
    "upstash+http": "langchain_kv.places.upstash:parse_upstash_url",
}
"""The function that makes a place of a URL of each scheme, in the form of an entry point; imported when one comes."""


_PAIRS: Final = re.compile(r"(?i)\b(?:password|passwd|pwd|token|secret)\s*=")


def parse_url(url: str) -> Place:
    """Return the place that a URL names.

    Args:
        url: ``sqlite:PATH``, ``memory:``, ``memory:NAME``, ``https://HOST``, ``http://HOST``, ``cassandra://...``,
            ``cassandra+bundle:PATH``, ``postgresql://...``, ``mysql://...``, ``mariadb://...``,
            ``sqlite+sqlalchemy:PATH``, ``redis://...``, ``rediss://...``, ``valkey://...``, ``mongodb://...``,
            ``mongodb+srv://...``, ``upstash+https://HOST``, or one whose scheme another package adds.

    Raises:
        ConfigError: it is none of these; the text lists ours.
    """
    if isinstance(url, os.PathLike):
        with importing.lock:
            from langchain_kv.places.files import file_url

        raise ConfigError(f"A URL must be a string, got a path: write {file_url(os.fspath(url))!r}.")
    if not isinstance(url, str):
        raise ConfigError(f"A URL must be a string, got {type_name(url)}. Give one of:\n{FORMS}")
    url = exact(url).strip()
    scheme, colon, _ = url.partition(":")
    if colon and scheme.lower() in SCHEMES:
        return _parser(SCHEMES[scheme.lower()])(url)
    added = _added(scheme.lower()) if colon else None
    if added is not None:
        return _place_of(added, url)
    if _PAIRS.search(url):  # a driver's own form, which may hold a password
        raise ConfigError(f"Pairs of NAME=VALUE are not a URL of a place for values. Give one of:\n{FORMS}")
    with importing.lock:
        from langchain_kv.places.hints import meant, meant_scheme

    if hint := meant(url, SCHEMES):
        raise ConfigError(
            f"{url!r} is not a URL of a place for values: did you mean {hint}? Else give one of:\n{FORMS}"
        )
    if colon and (close := meant_scheme(scheme, SCHEMES)):  # the rest may hold a password
        raise ConfigError(
            f"{scheme:.40}:... is not a URL of a place for values: did you mean {close}:...? Else give one of:\n{FORMS}"
        )
    shown = f"{scheme:.40}:..." if colon else repr(url[:60])
    raise ConfigError(f"{shown} is not a URL of a place for values. Give one of:\n{FORMS}")


def _parser(path: str) -> Callable[[str], Place]:
    module, _, name = path.partition(":")
    with importing.lock:
        parser: Callable[[str], Place] = getattr(importlib.import_module(module), name)
    return parser


# -- the schemes of other packages ------------------------------------------------------------------------------------


def _added(scheme: str) -> EntryPoint | None:
    """Return the entry point of a scheme, None where no package adds it.

    Raises:
        ConfigError: several packages add it.
    """
    with importing.lock:
        from importlib.metadata import entry_points

    found = [each for each in entry_points(group=GROUP) if each.name.lower() == scheme]
    if len(found) > 1:
        names = " and ".join(sorted(map(_distribution, found)))
        raise ConfigError(f"The scheme {scheme}: is added by {names}: uninstall all of them but one.")
    return found[0] if found else None


def _place_of(entry: EntryPoint, url: str) -> Place:
    try:
        with importing.lock:
            parser = entry.load()
    except Exception as error:
        raise ConfigError(
            f"The scheme {entry.name}: of {_distribution(entry)} cannot be used, because {entry.value} does not load:"
            f" {type(error).__name__}: {error}"
        ) from error
    try:
        place = parser(url)
    except StoreError:
        raise
    except Exception as error:  # whose text is not shown: it may have the URL in it, and that a password
        raise ConfigError(
            f"The scheme {entry.name}: of {_distribution(entry)} made no place of the URL: {entry.value} raised"
            f" {type(error).__name__}."
        ) from None
    if not isinstance(place, Place):
        raise ConfigError(
            f"The scheme {entry.name}: of {_distribution(entry)} made no place of the URL: {entry.value} returned"
            f" {type_name(place)}."
        )
    return place


def _distribution(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else "an unknown package"

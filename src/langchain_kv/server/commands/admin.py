"""Commands about keyspaces and collections."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.errors import DataAPIError
from langchain_kv.runtime.arrays import imported_numpy
from langchain_kv.server.commands.reply import Reply
from langchain_kv.server.commands.requests import Request, flag, invalid, mismatch, name_to_drop
from langchain_kv.server.commands.settings import check_name, explained, is_same, parse_options

__all__ = [
    "create_collection",
    "create_keyspace",
    "delete_collection",
    "drop_keyspace",
    "find_collections",
    "find_keyspaces",
]

_OK = Reply(status={"ok": 1})


async def create_keyspace(request: Request) -> Reply:
    """Create a keyspace, or find that it is there; its replication is checked in form, and has no meaning here."""
    _check_replication(request.options.get("replication"))
    name = check_name(request.fields.get("name"), "keyspace")
    await request.engine.bridge.write(request.engine.create_keyspace, name)
    return _OK


_STRATEGIES: Final = ("SimpleStrategy", "NetworkTopologyStrategy")


def _check_replication(option: Any) -> None:
    if option is None:
        return
    if not isinstance(option, dict):
        raise mismatch("The option 'replication' needs an object with 'class'.")
    for name, value in option.items():
        if not (_is_text(value) if name == "class" else _is_number(value)):
            raise mismatch(f"The option 'replication' needs another kind of value for {name[:100]!r}.")
    if option.get("class") not in _STRATEGIES:
        raise invalid(f"The option 'replication' needs 'class', one of {', '.join(_STRATEGIES)}.")


def _is_text(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _is_number(value: Any) -> bool:
    """Whether it is null, a number, or an integer as a text, which the Data API reads as one."""
    if isinstance(value, str):
        return value.strip().removeprefix("-").isdecimal()
    return value is None or (isinstance(value, int | Decimal) and not isinstance(value, bool))


async def find_keyspaces(request: Request) -> Reply:
    """List the keyspaces, under the word of the command."""
    names = await request.engine.bridge.read(request.engine.keyspaces)
    return Reply(status={"namespaces" if request.command == "findNamespaces" else "keyspaces": names})


async def drop_keyspace(request: Request) -> Reply:
    """Drop a keyspace and all in it, or find that there is none."""
    name = name_to_drop(request)
    await request.engine.bridge.write(request.engine.drop_keyspace, name)
    return _OK


async def create_collection(request: Request) -> Reply:
    """Create a collection, or find that it is there with the same settings."""
    name = check_name(request.fields.get("name"), "collection")
    wanted = parse_options(request.options)
    if "vector" in wanted:
        require_vectors(request.engine)
    collection = CollectionName(request.keyspace, name)
    existing = await request.engine.bridge.write(request.engine.create_collection, collection, wanted)
    if not is_same(existing, wanted):
        raise DataAPIError.of(
            "EXISTING_COLLECTION_DIFFERENT_SETTINGS",
            f"The collection '{name}' exists with other settings (findCollections with 'explain' shows them):"
            " send these, use another name, or delete the collection first.",
        )
    return _OK


def require_vectors(engine: Engine) -> None:
    """Refuse a collection with vectors where these could not be searched.

    Raises:
        DataAPIError: VECTOR_SEARCH_NOT_SUPPORTED.
    """
    if not engine.keeps_vectors:
        reason = "where this server keeps its documents there is no search by vector"
    elif engine.compares_by_numpy and imported_numpy() is None:
        reason = "the search by vector needs numpy where the server runs: pip install 'langchain-kv[vector]'"
    else:
        return
    raise DataAPIError.of("VECTOR_SEARCH_NOT_SUPPORTED", f"The option 'vector' cannot be used: {reason}.")


async def find_collections(request: Request) -> Reply:
    """List the collections of a keyspace, with ``explain`` also what they were created with."""
    is_explained = flag(request.options, "explain")
    found = await request.engine.bridge.read(request.engine.collections, request.keyspace)
    names: list[Any] = list(found)
    if is_explained:
        names = [{"name": name, "options": explained(settings)} for name, settings in found.items()]
    return Reply(status={"collections": names})


async def delete_collection(request: Request) -> Reply:
    """Delete a collection and its documents, or find that there is none."""
    collection = CollectionName(request.keyspace, name_to_drop(request))
    await request.engine.bridge.write(request.engine.drop_collection, collection)
    return _OK

"""The registry of commands, and the way of a request through it: bytes in, HTTP status and bytes out. No HTTP here.

A command is one line in a table here. The checks before its handler runs are the Data API's, in its order: JSON,
structure, the command's name, its fields.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import Engine
from langchain_kv.errors import DataAPIError, StoreError
from langchain_kv.server.commands import admin, inserts, reads, unsupported, updates, writes
from langchain_kv.server.commands.reply import Reply, error_entry, failed, storage_failed
from langchain_kv.server.commands.requests import Request, invalid, mismatch
from langchain_kv.server.documents.inserted import read_inserted
from langchain_kv.server.pacing import LARGE_BYTES, apart

__all__ = ["COMMANDS", "Command", "answer"]

logger = logging.getLogger("langchain_kv")

Handler = Callable[[Request], Awaitable[Reply]]


class Command(NamedTuple):
    """What is known of a command before it is carried out.

    Attributes:
        handler: carries it out.
        fields: the fields it may have.
        options: what its field ``options`` may hold; without any, options are refused unless they are empty.
        unknown_option: the error code of another option.
        instead: the command that replaced a deprecated one.
    """

    handler: Handler
    fields: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    unknown_option: str = "COMMAND_FIELD_UNKNOWN"
    instead: str = ""


_FLAGS: Final = ("includeSimilarity", "includeSortVector")
_PAGE: Final = ("pageState", "pagingState")
_CREATE: Final = ("defaultId", "indexing", "lexical", "rerank", "vector")

GENERAL: Final = {
    "createKeyspace": Command(admin.create_keyspace, ("name", "options"), ("replication",)),
    "findKeyspaces": Command(admin.find_keyspaces),
    "dropKeyspace": Command(admin.drop_keyspace, ("name",)),
    "createNamespace": Command(admin.create_keyspace, ("name", "options"), ("replication",), instead="createKeyspace"),
    "findNamespaces": Command(admin.find_keyspaces, instead="findKeyspaces"),
    "dropNamespace": Command(admin.drop_keyspace, ("name",), instead="dropKeyspace"),
    "findEmbeddingProviders": Command(unsupported.find_embedding_providers, ("options",), ("filterModelStatus",)),
    "findRerankingProviders": Command(unsupported.find_reranking_providers, ("options",), ("filterModelStatus",)),
}
KEYSPACE: Final = {
    "createCollection": Command(
        admin.create_collection, ("name", "options"), _CREATE, "INVALID_CREATE_COLLECTION_FIELD"
    ),
    "findCollections": Command(admin.find_collections, ("options",), ("explain",)),
    "deleteCollection": Command(admin.delete_collection, ("name",)),
    "listTables": Command(unsupported.list_tables, ("options",), ("explain",)),
    "listTypes": Command(unsupported.list_types, ("options",), ("explain",)),
    "dropTable": Command(unsupported.drop_table, ("name", "options"), ("ifExists",)),
    "dropIndex": Command(unsupported.drop_index, ("name", "options"), ("ifExists",)),
    "dropType": Command(unsupported.drop_type, ("name", "options"), ("ifExists",)),
    "createTable": Command(unsupported.refuse_table, ("name", "definition", "options"), ("ifNotExists",)),
    "createType": Command(unsupported.refuse_table, ("name", "definition", "options"), ("ifNotExists",)),
    "alterType": Command(unsupported.refuse_table, ("name", "rename", "add")),
}
_INDEX: Final = Command(
    unsupported.refuse_on_collection, ("name", "definition", "indexType", "options"), ("ifNotExists",)
)
COLLECTION: Final = {
    "insertOne": Command(inserts.insert_one, ("document", "options")),
    "insertMany": Command(inserts.insert_many, ("documents", "options"), ("ordered", "returnDocumentResponses")),
    "find": Command(reads.find, ("filter", "projection", "sort", "options"), ("limit", "skip", *_PAGE, *_FLAGS)),
    "findOne": Command(reads.find_one, ("filter", "projection", "sort", "options"), _FLAGS),
    "countDocuments": Command(reads.count_documents, ("filter", "options")),
    "estimatedDocumentCount": Command(reads.estimated_document_count, ("options",)),
    "updateOne": Command(updates.update_one, ("filter", "update", "sort", "options"), ("upsert",)),
    "updateMany": Command(updates.update_many, ("filter", "update", "options"), ("upsert", *_PAGE)),
    "findOneAndUpdate": Command(
        updates.find_one_and_update,
        ("filter", "update", "sort", "projection", "options"),
        ("returnDocument", "upsert"),
    ),
    "findOneAndReplace": Command(
        writes.find_one_and_replace,
        ("filter", "sort", "replacement", "projection", "options"),
        ("returnDocument", "upsert"),
    ),
    "findOneAndDelete": Command(writes.find_one_and_delete, ("filter", "sort", "projection")),
    "deleteOne": Command(writes.delete_one, ("filter", "sort", "options")),
    "deleteMany": Command(writes.delete_many, ("filter", "options")),
    "findAndRerank": Command(
        unsupported.refuse_reranking,
        ("filter", "projection", "sort", "options"),
        ("limit", "hybridLimits", "rerankOn", "rerankQuery", "rerank", "includeScores", "includeSortVector"),
    ),
    "alterTable": Command(unsupported.refuse_on_collection, ("operation", "options")),
    "createIndex": _INDEX,
    "createTextIndex": _INDEX,
    "createVectorIndex": _INDEX,
    "listIndexes": Command(unsupported.refuse_on_collection, ("options",), ("explain",)),
}
COMMANDS: Final = (GENERAL, KEYSPACE, COLLECTION)
"""The commands by how many names the URL has: none (the database), a keyspace, a keyspace and a collection."""

_ARGUMENT_DEPTH_MAX: Final = 100
_DOCUMENTS: Final = ("document", "documents", "replacement")


async def answer(engine: Engine, path: tuple[str, ...], body: bytes) -> tuple[int, bytes]:
    """Carry out one command.

    Args:
        engine: where documents are kept.
        path: the names in the URL: nothing, a keyspace, or a keyspace and a collection.
        body: the body of the request.

    Returns:
        The HTTP status and the body of the answer. Nothing is raised: what goes wrong is in the answer.
    """
    if len(body) > LARGE_BYTES:  # which takes long to read alone
        return await apart(lambda: asyncio.run(_answer(engine, path, body)))
    return await _answer(engine, path, body)


async def _answer(engine: Engine, path: tuple[str, ...], body: bytes) -> tuple[int, bytes]:
    warnings: list[dict[str, Any]] = []
    try:
        reply = await _carry_out(engine, path, body, warnings)
        return _encoded(reply, warnings)
    except Exception as error:
        return _encoded(failed(_as_data_api_error(error)), warnings)


def _encoded(reply: Reply, warnings: list[dict[str, Any]]) -> tuple[int, bytes]:
    if warnings:
        reply = reply._replace(status={**(reply.status or {}), "warnings": warnings})
    return reply.http_status, reply.encoded()


async def _carry_out(engine: Engine, path: tuple[str, ...], body: bytes, warnings: list[dict[str, Any]]) -> Reply:
    name, command, fields = _split(read_inserted(body) if body.strip() else None, COMMANDS[len(path)])
    if command.instead:
        message = f"{name} is deprecated: use {command.instead}."
        warnings.append(error_entry(DataAPIError.of("DEPRECATED_COMMAND", message)))
    may_be_deep = body.count(b"{") + body.count(b"[") > _ARGUMENT_DEPTH_MAX
    for field, value in fields.items():
        if may_be_deep and field not in _DOCUMENTS and _is_deeper(value, _ARGUMENT_DEPTH_MAX):
            raise mismatch(f"The field '{field}' nests over {_ARGUMENT_DEPTH_MAX} levels: simplify it.")
    return await command.handler(Request(engine, name, path, fields, _options(name, command, fields)))


def _options(name: str, command: Command, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the field ``options`` of a command, checked; empty where it is absent or null."""
    options = fields.get("options")
    if options is None:
        return {}
    if not command.options:
        if options:
            raise DataAPIError.of(
                "COMMAND_ACCEPTS_NO_OPTIONS", f"{name} accepts no options: leave out the field 'options'."
            )
        return {}
    if not isinstance(options, dict):
        raise mismatch(f"The field 'options' of {name} needs an object.")
    for option in options:
        if option not in command.options:
            known = ", ".join(command.options)
            raise DataAPIError.of(command.unknown_option, f"{name} has no option {option[:100]!r}; there are: {known}.")
    return options


def _split(request: Any, known: dict[str, Command]) -> tuple[str, Command, dict[str, Any]]:
    """Return the name, the command and the fields of the one command in a parsed body."""
    if request is None:
        raise invalid('The request has no command: send an object with one, such as {"find": {}}.')
    if not isinstance(request, dict) or not request:
        raise mismatch('A request is an object with exactly one command, such as {"find": {}}.')
    name, fields = next(iter(request.items()))
    command = known.get(name)
    if command is None:
        raise DataAPIError.of(
            "COMMAND_UNKNOWN", f"There is no command {name[:100]!r} at this URL; there are {', '.join(known)}."
        )
    if not isinstance(fields, dict):
        raise mismatch(f"The command {name} needs an object with its fields: send {{}} where there is nothing to say.")
    for field in fields:
        if field not in command.fields:
            expected = ", ".join(command.fields) or "none"
            raise DataAPIError.of(
                "COMMAND_FIELD_UNKNOWN", f"{name} has no field {field[:100]!r}; there are: {expected}."
            )
    if len(request) > 1:
        raise mismatch("A request has exactly one command: send each in a request of its own.")
    return name, command, fields


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    below = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in below)


def _as_data_api_error(error: Exception) -> DataAPIError:
    """Return what a client is told of an error; what nobody foresaw is logged, and its text stays here."""
    if isinstance(error, DataAPIError):
        return error
    if isinstance(error, StoreError):
        return storage_failed(error)
    logger.error("A command ended in an error that nobody foresaw.", exc_info=error)
    return DataAPIError.of(
        "UNEXPECTED_SERVER_ERROR", "The server failed on this command; the reason is in its log. Please report it."
    )

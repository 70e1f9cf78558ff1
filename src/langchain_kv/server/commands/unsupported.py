"""Commands of what this server does not have: tables, and services that the Data API can do without.

There are no tables here, and clients ask for them before they work with collections: what lists them finds none, what
drops one finds that there is none, what makes or changes one is refused.
"""

from __future__ import annotations

from typing import Final

from langchain_kv.errors import DataAPIError
from langchain_kv.server.commands.reply import Reply
from langchain_kv.server.commands.requests import Request, flag, invalid, mismatch, name_to_drop

__all__ = [
    "drop_index",
    "drop_table",
    "drop_type",
    "find_embedding_providers",
    "find_reranking_providers",
    "list_tables",
    "list_types",
    "refuse_on_collection",
    "refuse_reranking",
    "refuse_table",
]


_MODEL_STATUSES: Final = ("SUPPORTED", "DEPRECATED", "END_OF_LIFE")


async def find_embedding_providers(request: Request) -> Reply:
    """List the embedding providers: there are none."""
    _check_model_status(request)
    return Reply(status={"embeddingProviders": {}})


async def find_reranking_providers(request: Request) -> Reply:
    """Refuse to list reranking services, as where that feature is off."""
    _check_model_status(request)
    return await refuse_reranking(request)


def _check_model_status(request: Request) -> None:
    """Check which models are asked for, in capitals or not; an empty text asks for all."""
    status = request.options.get("filterModelStatus")
    if isinstance(status, dict | list):
        raise mismatch("The option 'filterModelStatus' is a text.")
    if status is not None and (not isinstance(status, str) or status.upper() not in ("", *_MODEL_STATUSES)):
        raise invalid(
            f"The option 'filterModelStatus' is one of {', '.join(_MODEL_STATUSES)}, or an empty text for all."
        )


async def refuse_reranking(request: Request) -> Reply:
    """Refuse a command that needs a reranking service."""
    if len(request.path) == 2:
        await request.collection()
    raise DataAPIError.of(
        "RERANKING_FEATURE_NOT_ENABLED",
        f"The local Data API has no lexical search and no reranking, so it cannot carry out"
        f" {request.command}: test this part on a database that has them.",
    )


async def list_tables(request: Request) -> Reply:
    """List the tables of a keyspace: there are none."""
    return await _none(request, "tables")


async def list_types(request: Request) -> Reply:
    """List the user-defined types of a keyspace: there are none."""
    return await _none(request, "types")


async def _none(request: Request, kind: str) -> Reply:
    flag(request.options, "explain")
    await request.check_keyspace()
    return Reply(status={kind: []})


async def drop_table(request: Request) -> Reply:
    """Find that there is no such table; a collection is none."""
    return await _drop(request, "table")


async def drop_index(request: Request) -> Reply:
    """Find that no table has such an index."""
    return await _drop(request, "index")


async def drop_type(request: Request) -> Reply:
    """Find that there is no such user-defined type."""
    return await _drop(request, "type")


async def _drop(request: Request, kind: str) -> Reply:
    name, if_exists = name_to_drop(request), flag(request.options, "ifExists")
    await request.check_keyspace()
    if if_exists:
        return Reply(status={"ok": 1})
    raise DataAPIError.of(
        f"CANNOT_DROP_UNKNOWN_{kind.upper()}",
        f"There is no {kind} {name[:100]!r}: the local Data API has collections only, which deleteCollection deletes."
        " With the option 'ifExists' this command succeeds.",
    )


async def refuse_table(request: Request) -> Reply:
    """Refuse a command that makes or changes a table or a type."""
    await request.check_keyspace()
    raise DataAPIError.of(
        "UNSUPPORTED_TABLE_COMMAND",
        f"The local Data API has no tables, so it cannot carry out {request.command}: use collections, or test this"
        " part on a database that has tables.",
    )


async def refuse_on_collection(request: Request) -> Reply:
    """Refuse a command for tables at the URL of a collection."""
    await request.collection()
    raise DataAPIError.of(
        "UNSUPPORTED_COLLECTION_COMMAND", f"{request.command} is for tables, and this is a collection."
    )

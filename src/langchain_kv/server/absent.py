"""Commands of services that this server does not have, answered as the Data API does where they are switched off."""

from __future__ import annotations

from langchain_kv.errors import DataAPIError
from langchain_kv.server.reply import Reply
from langchain_kv.server.requests import Request

__all__ = ["find_embedding_providers", "refuse_reranking"]


async def find_embedding_providers(_: Request) -> Reply:
    """List the embedding providers: there are none."""
    return Reply(status={"embeddingProviders": {}})


async def refuse_reranking(request: Request) -> Reply:
    """Refuse a command that needs a reranking service."""
    if len(request.path) == 2:
        await request.collection()
    raise DataAPIError.of(
        "RERANKING_FEATURE_NOT_ENABLED",
        f"The local Data API has no vectors, no lexical search and no reranking, so it cannot carry out"
        f" {request.command}: test this part on a database that has them.",
    )

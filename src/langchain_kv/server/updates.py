"""updateOne, updateMany, findOneAndUpdate: not carried out yet, and refused in a way that clients understand."""

from __future__ import annotations

from langchain_kv.errors import DataAPIError
from langchain_kv.server.reply import Reply
from langchain_kv.server.requests import Request, invalid

__all__ = ["refuse"]


async def refuse(request: Request) -> Reply:
    """Answer any update with an error that names the way around it."""
    await request.collection()
    if request.fields.get("update") is None:
        raise invalid(f"{request.command} needs the field 'update'.")
    raise DataAPIError.of(
        "UNSUPPORTED_UPDATE_OPERATION",
        f"The local Data API does not carry out {request.command} yet: read the document, change it, and write it"
        " with findOneAndReplace.",
    )

"""Going through a collection page by page, and the page states that a client sends back for the next page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import NamedTuple

from langchain_kv.engines.base import DocId
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import PAGE_SIZE
from langchain_kv.server.filters import Filter
from langchain_kv.server.requests import Collection, Request

__all__ = ["Position", "matching_documents", "matching_page", "read_page_state"]

_SCAN_SIZE = 2 * PAGE_SIZE


class Position(NamedTuple):
    """Where a find has come to.

    Attributes:
        sent: how many documents earlier pages held, which count against its limit.
        after: the id of the last one, or None at the start.
    """

    sent: int = 0
    after: DocId | None = None

    def as_page_state(self) -> str:
        """Return the text that ``read_page_state`` reads: opaque to clients, safe in a URL."""
        kind, name = (b"s", self.after.encode()) if isinstance(self.after, str) else (b"b", self.after or b"")
        return base64.urlsafe_b64encode(b"%d:%s%s" % (self.sent, kind, name)).decode().rstrip("=")


def read_page_state(text: str) -> Position:
    """Return where a page state points to.

    Raises:
        DataAPIError: UNEXPECTED_SERVER_ERROR, as on the Data API, for text that is no page state.
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        sent, _, name = base64.b64decode(padded, altchars=b"-_", validate=True).partition(b":")
        if not sent.isdigit() or name[:1] not in (b"s", b"b") or len(name) < 2:
            raise ValueError(text)
        return Position(int(sent), name[1:].decode() if name[:1] == b"s" else name[1:])
    except (ValueError, binascii.Error):
        raise DataAPIError.of(
            "UNEXPECTED_SERVER_ERROR",
            "The option 'pageState' is none that this server made: send the 'nextPageState' of the page before,"
            " unchanged, or leave it out to begin anew.",
        ) from None


async def matching_page(
    request: Request, collection: Collection, condition: Filter, start: Position, limit: int
) -> tuple[list[tuple[DocId, bytes]], bool]:
    """Return up to ``limit`` documents after ``start`` that match, and whether there may be more.

    A full page means "may be more": a result of exactly one page is followed by an empty one, as on the Data API.
    """
    found: list[tuple[DocId, bytes]] = []
    async for document in matching_documents(request, collection, condition, start.after, limit):
        found.append(document)
        if len(found) == limit:
            return found, True
    return found, False


async def matching_documents(
    request: Request, collection: Collection, condition: Filter, after: DocId | None = None, limit: int = _SCAN_SIZE
) -> AsyncIterator[tuple[DocId, bytes]]:
    """Yield the documents that match, in the order of ids; ``limit`` is how many the caller will take at most."""
    size = min(limit, _SCAN_SIZE) if condition.test is None else _SCAN_SIZE
    engine = request.engine
    while True:
        page = await engine.bridge.read(engine.scan, collection.name, after=after, limit=size)
        for document_id, body in page:
            if condition.matches(body):
                yield document_id, body
        if len(page) < size:
            return
        after = page[-1][0]

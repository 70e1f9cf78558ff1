"""Large bodies, written and read piece by piece, so that the event loop has its turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp

from langchain_kv.runtime.slices import next_turn, pieces

__all__ = ["LargeBody", "read_large"]

_PIECE_BYTES: Final = 256 * 1024
"""What of a large body is handed to the connection at once; aiohttp would write a file in smaller pieces, slower."""


class LargeBody(aiohttp.Payload):
    """A body that is written piece by piece, as fast as the connection takes it; it may be written again."""

    _value: Sequence[bytes]

    def __init__(self, parts: Sequence[bytes]) -> None:
        super().__init__(parts)
        self._size = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        for piece in pieces(self._value, _PIECE_BYTES):
            await writer.write(piece)
            await asyncio.sleep(0)  # a connection that takes it all at once would leave others no turn


async def read_large(response: aiohttp.ClientResponse, length: int) -> bytearray:
    """Read an answer into its place as it comes: to join the parts of what may be 400 MB would hold up the loop."""
    await next_turn()  # a place of 4 MiB takes two milliseconds, and a dozen answers begin at once
    body = bytearray(length)
    end = 0
    async for part in response.content.iter_any():
        body[end : end + len(part)] = part
        end += len(part)
        await asyncio.sleep(0)
    return body

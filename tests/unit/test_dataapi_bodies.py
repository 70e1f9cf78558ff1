"""Large bodies are read so that the event loop has its turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from langchain_kv.backends.dataapi.bodies import read_large
from loop_turns import counted_turns


async def test_of_many_answers_that_begin_at_once_one_is_given_its_place_in_a_turn() -> None:
    begun: list[int] = []

    async with counted_turns() as turns:

        async def parts() -> AsyncIterator[bytes]:
            begun.append(turns.count)
            for _ in range(3):
                yield b"x" * 1_000

        def response() -> Any:
            return SimpleNamespace(content=SimpleNamespace(iter_any=parts))

        bodies = await asyncio.gather(*(read_large(response(), 3_000) for _ in range(12)))
    assert bodies == [b"x" * 3_000] * 12
    assert len(set(begun)) == 12

"""deepagents' files over LangGraphStore in a SQL database: PostgreSQL loses none, where PostgresStore does."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from agents.files import check_by_coroutines, check_by_plain_calls, write_at_once
from langchain_kv import LangGraphStore


def test_every_file_that_is_written_at_once_is_listed_and_found_once(database: str) -> None:
    with LangGraphStore(database, collection=f"files_{uuid4().hex[:8]}") as store:
        asyncio.run(write_at_once(store))

        asyncio.run(check_by_coroutines(store))
        check_by_plain_calls(store)

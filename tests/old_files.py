"""A file of version 1, as langchain-kv 0.1.0 wrote it, with every kind of value; and which version a file has."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

OLD: Final = Path(__file__).parent / "data" / "files" / "schema1.db"
"""Copy it: nobody writes to it."""


def version(path: str | Path) -> int:
    """Return the number of a file's tables."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found

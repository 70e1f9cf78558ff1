"""The options that several commands have."""

from __future__ import annotations

import sys
from typing import Final

from langchain_kv.cli.parsing import Option, number, seconds

__all__ = [
    "BYTES",
    "COLLECTION",
    "DB",
    "DRY_RUN",
    "KEYSPACE",
    "LIMIT",
    "NAMESPACE",
    "PLACE",
    "PREFIX",
    "STORE",
    "TEXT",
    "TIMEOUT",
    "TOKEN",
    "TO_COLLECTION",
    "TO_TOKEN",
    "VERIFY",
    "YES",
]

DB: Final = Option(
    "--db",
    "sqlite:PATH, redis://..., @FILE with it; else LCKV_URL.",
    "URL",
    required=True,
    variables=("LCKV_URL", "ASTRA_DB_API_ENDPOINT"),
)
COLLECTION: Final = Option("--collection", "The store's collection.", "NAME", required=True)
KEYSPACE: Final = Option("--keyspace", "Else ASTRA_DB_KEYSPACE, else default_keyspace.", "NAME")
NAMESPACE: Final = Option("--namespace", "A label of the namespace; repeated for those below.", "LABEL", repeated=True)
TOKEN: Final = Option("--token", "A file that holds it; else ASTRA_DB_APPLICATION_TOKEN.", "@FILE")
TIMEOUT: Final = Option("--timeout", "How long to go on without any success; else 60.", "SECONDS", convert=seconds)

PLACE: Final = (DB, KEYSPACE, TOKEN, TIMEOUT)
"""What names a target."""

STORE: Final = (DB, COLLECTION, KEYSPACE, NAMESPACE, TOKEN, TIMEOUT)
"""What names a collection of a target, or a namespace in it."""

PREFIX: Final = Option("--prefix", "Only keys that start with it.", "TEXT")
LIMIT: Final = Option("--limit", "At most so many.", "N", convert=number(1, sys.maxsize))
TEXT: Final = Option("--text", "The value is text, as it is.")
BYTES: Final = Option("--bytes", "The value is bytes, as they are.")
DRY_RUN: Final = Option("--dry-run", "Say what would be done, and change nothing.")
YES: Final = Option("--yes", "Do it: without it, nothing is changed.")
TO_COLLECTION: Final = Option("--to-collection", "That of TO; else the same.", "NAME")
TO_TOKEN: Final = Option("--to-token", "That of TO; else of the environment.", "@FILE")
VERIFY: Final = Option("--verify", "Read all again afterwards and compare.")

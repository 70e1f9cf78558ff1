"""The forms of URLs, as messages list them."""

from __future__ import annotations

from typing import Final

__all__ = ["BUNDLE_FORM", "CLUSTER_FORM", "FORMS", "FORMS_IN_A_LINE"]

CLUSTER_FORM: Final = "cassandra://USER:PASSWORD@HOST1,HOST2:PORT/KEYSPACE"
BUNDLE_FORM: Final = "cassandra+bundle:PATH"

FORMS: Final = (
    "  sqlite:kv.db              a file (sqlite:PATH)\n"
    "  memory:                   this process's memory (memory:NAME for another database)\n"
    "  https://HOST, http://HOST Astra DB or any Data API\n"
    f"  {CLUSTER_FORM}\n"
    "                            Apache Cassandra, without a Data API in between\n"
    f"  {BUNDLE_FORM}     Astra DB by CQL, with its secure connect bundle"
)

FORMS_IN_A_LINE: Final = f"sqlite:PATH, https://HOST, http://HOST:PORT, {CLUSTER_FORM} or {BUNDLE_FORM}"
"""The same for who has one line, and no use for memory: the command."""

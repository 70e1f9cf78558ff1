"""The forms of URLs, as messages list them."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BUNDLE_FORM",
    "CLUSTER_FORM",
    "FORMS",
    "FORMS_IN_A_LINE",
    "MONGODB_FORM",
    "REDIS_FORM",
    "SQL_FORM",
    "UPSTASH_FORM",
]

CLUSTER_FORM: Final = "cassandra://USER:PASSWORD@HOST1,HOST2:PORT/KEYSPACE"
BUNDLE_FORM: Final = "cassandra+bundle:PATH"
SQL_FORM: Final = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
REDIS_FORM: Final = "redis://USER:PASSWORD@HOST:PORT"
MONGODB_FORM: Final = "mongodb://USER:PASSWORD@HOST:PORT/DATABASE"
UPSTASH_FORM: Final = "upstash+https://HOST"

FORMS: Final = (
    "  sqlite:kv.db              a file (sqlite:PATH)\n"
    "  memory:                   this process's memory (memory:NAME for another database)\n"
    "  https://HOST, http://HOST Astra DB or any Data API\n"
    f"  {CLUSTER_FORM}\n"
    "                            Apache Cassandra, without a Data API in between\n"
    f"  {BUNDLE_FORM}     Astra DB by CQL, with its secure connect bundle\n"
    f"  {SQL_FORM}\n"
    "                            PostgreSQL (mysql:// for MySQL and MariaDB; sqlite+sqlalchemy:PATH), by SQLAlchemy\n"
    f"  {REDIS_FORM}\n"
    "                            Redis or Valkey; rediss: with TLS, ?cluster=true for a cluster\n"
    f"  {MONGODB_FORM}\n"
    "                            MongoDB (mongodb+srv://..., too)\n"
    f"  {UPSTASH_FORM}      Upstash's Redis, by HTTP"
)

FORMS_IN_A_LINE: Final = (
    f"sqlite:PATH, https://HOST, http://HOST:PORT, {CLUSTER_FORM}, {BUNDLE_FORM}, {SQL_FORM}, {REDIS_FORM},"
    f" {MONGODB_FORM} or {UPSTASH_FORM}"
)
"""The same for who has one line, and no use for memory: the command."""

"""The page that says what the local server answers of the Data API: ``make coverage-page`` writes it.

Names come from the registry of commands and the tables of operators; what stands here is the remarks. A name without
a remark is answered as by the real server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from langchain_kv.limits import (
    COUNT_MAX,
    DELETE_MANY_MAX,
    INDEXING_MAX_UTF16,
    PAGE_SIZE,
    PATH_MAX_NAMES,
    SORT_MAX_FIELDS,
    SORT_MAX_ROWS,
    UPDATE_MANY_MAX,
    VECTOR_SEARCH_MAX,
)
from langchain_kv.server.commands.table import COMMANDS
from langchain_kv.server.query import filters
from langchain_kv.server.update import operators as update_operators

__all__ = ["ASTRAPY", "ASTRAPY_VERSION", "page"]

Remarks = Mapping[str, tuple[str, str]]
"""Name -> ``yes``, ``differs`` or ``no``, and how or why."""

_NO_TABLES: Final = ("no", "UNSUPPORTED_TABLE_COMMAND: there are no tables here")
_ON_COLLECTION: Final = ("yes", "UNSUPPORTED_COLLECTION_COMMAND on a collection")
_DEPRECATED: Final = ("yes", "with the warning DEPRECATED_COMMAND")
_RERANK: Final = ("no", "RERANKING_FEATURE_NOT_ENABLED, the real server's answer where that feature is off")

_COMMANDS: Final[Remarks] = {
    "findKeyspaces": ("yes", "there are no system keyspaces"),
    "createNamespace": _DEPRECATED,
    "findNamespaces": _DEPRECATED,
    "dropNamespace": _DEPRECATED,
    "findEmbeddingProviders": (
        "yes",
        "there are none: an empty object (VECTORIZE_FEATURE_NOT_AVAILABLE where the real server has that feature off)",
    ),
    "findRerankingProviders": _RERANK,
    "createCollection": ("differs", "any number of collections; those with lexical search are refused"),
    "findCollections": ("yes", "names come in order, not by hash"),
    "insertMany": ("yes", "one transaction; of a repeated `_id` the first is inserted"),
    "find": (
        "yes",
        f"{PAGE_SIZE} documents a page, fewer where they make 8 MB, in the order of their ids (`$in`: in its order)",
    ),
    "countDocuments": ("differs", f"counts `_id` `$in` right (see below); over {COUNT_MAX:,}: `moreData`"),
    "estimatedDocumentCount": ("differs", "exact"),
    "updateMany": (
        "yes",
        f"{UPDATE_MANY_MAX} documents a call, then `moreData` and `nextPageState`; each call is one transaction",
    ),
    "deleteMany": (
        "yes",
        f"{DELETE_MANY_MAX} a call, then `moreData`; each call is one transaction; without a filter all at once,"
        " answered with -1",
    ),
    "findAndRerank": _RERANK,
    "listTables": ("yes", "there are none: an empty list, with `explain`, too"),
    "listTypes": ("yes", "there are none: an empty list, with `explain`, too"),
    "dropTable": ("differs", "CANNOT_DROP_UNKNOWN_TABLE, or with `ifExists` success; a collection is no table"),
    "dropIndex": (
        "differs",
        "CANNOT_DROP_UNKNOWN_INDEX, or with `ifExists` success; nothing of a collection is dropped",
    ),
    "dropType": ("yes", "CANNOT_DROP_UNKNOWN_TYPE, or with `ifExists` success"),
    **dict.fromkeys(("createTable", "createType", "alterType"), _NO_TABLES),
    **dict.fromkeys(
        ("alterTable", "createIndex", "createTextIndex", "createVectorIndex", "listIndexes"), _ON_COLLECTION
    ),
}

_OPTIONS: Final[Remarks] = {
    "replication": ("differs", "checked in form, and has no meaning"),
    "filterModelStatus": ("differs", "checked, and has no meaning"),
    "lexical": ("no", 'only `{"enabled": false}`; else LEXICAL_NOT_AVAILABLE_FOR_DATABASE'),
    "rerank": ("no", 'only `{"enabled": false}`; else RERANKING_FEATURE_NOT_ENABLED'),
    "vector": ("differs", "needs numpy (extra `vector`); with `service`: VECTORIZE_FEATURE_NOT_AVAILABLE"),
    "limit": ("yes", "the page state remembers how many documents were sent"),
    "skip": ("yes", "needs a `sort`, else COMMAND_FIELD_VALUE_INVALID"),
    "pageState": (
        "yes",
        "opaque; text that is none: UNEXPECTED_SERVER_ERROR. A result of exactly 50, 100, ... ends with an empty page",
    ),
    "pagingState": ("yes", "the older name of `pageState`"),
    "includeSimilarity": ("yes", "in a search by vector; else it has no effect"),
    "includeSortVector": ("yes", "null without a sort by vector; as on the real server, the page is then the last one"),
    **dict.fromkeys(("hybridLimits", "rerankOn", "rerankQuery", "includeScores"), _RERANK),
}

_UNRECORDED: Final = ("differs", "not recorded: see below")
_NO_SEARCH: Final = ("no", "LEXICAL_NOT_ENABLED_FOR_COLLECTION on `$lexical`; FILTER_INVALID_EXPRESSION elsewhere")
_FILTERS: Final[Remarks] = {
    "$eq": ("yes", "also as `field: value`; null is not looked for in arrays, as on the real server"),
    **dict.fromkeys(("$ne", "$nin", "$gt", "$gte", "$lt", "$lte", "$or", "$not"), _UNRECORDED),
    "$match": _NO_SEARCH,
    "`$lexical`": _NO_SEARCH,
    "`$vector`, `$vectorize`": ("yes", "only `$exists`, as on the real server; else FILTER_INVALID_EXPRESSION"),
}
_MORE_FILTERS: Final = ("$and", "$or", "$not", "$match", "`$lexical`", "`$vector`, `$vectorize`")

_DIGITS: Final = ("yes", "exact; a result of over 100 digits is SHRED_DOC_LIMIT_VIOLATION")
_UPDATES: Final[Remarks] = {
    "$addToSet": ("yes", "with `$each`"),
    "$push": ("yes", "with `$each` and `$position`"),
    "$inc": _DIGITS,
    "$mul": _DIGITS,
    "$set": ("yes", "`$vectorize`: EMBEDDING_SERVICE_NOT_CONFIGURED"),
    "$setOnInsert": ("differs", "may set `_id`; `$vector`, `$vectorize` as for `$set`"),
    "$pullAll": ("no", "UNSUPPORTED_UPDATE_OPERATION, as on the real server"),
}

_SORTS: Final[Remarks] = {
    "`1`, `-1`": (
        "yes",
        "several fields; missing, null, numbers, texts, booleans, dates; equals by `_id`. Objects and"
        " arrays stand among the texts, at the place of the text that the real server indexes for them",
    ),
    f"{SORT_MAX_ROWS:,} matching documents": ("yes", "OVERLOADED_SORT_ROW_LIMIT"),
    "`pageState`": ("yes", f"a sorted result has one page of at most {PAGE_SIZE}; a page state is SORT_CLAUSE_INVALID"),
    "`$vector`": (
        "yes",
        f"exact: compared with every vector of the collection; one page of at most {VECTOR_SEARCH_MAX:,}",
    ),
    "`$vectorize`": ("no", "EMBEDDING_SERVICE_NOT_CONFIGURED; of what is no text, SORT_CLAUSE_VALUE_INVALID"),
    "`$lexical`": ("no", "LEXICAL_NOT_ENABLED_FOR_COLLECTION"),
}

_ON_PURPOSE: Final = (
    ("`read`, \"count\"", "countDocuments with `_id` `$in` counts the first id only",
     "counts every id that is there, once", "a defect that nobody can rely on"),
    ("`http`, \"accept html\"", "`Accept: text/html` gets a debug text", "JSON, as for any `Accept`",
     "nobody can use the debug text"),
    ("not recorded", "an empty token: INTERNAL_SERVER_ERROR, HTTP 200", "MISSING_AUTHENTICATION_TOKEN, HTTP 401",
     "it is missing"),
    ("not recorded", "a request with a wrong token is read first: what is wrong with its command is told before, and"
     " `createNamespace` has its warning beside UNAUTHENTICATED_REQUEST", "UNAUTHENTICATED_REQUEST alone, HTTP 401",
     "nothing is read of who may not ask"),
    ("not recorded", "an `_id` of `{\"$binary\": ...}` gives an unusable id", "SHRED_BAD_DOCID_TYPE",
     "what is stored can be found again"),
    ("not recorded", "field paths, projections, filters and updates of any depth",
     "at most 100 levels, else REQUEST_STRUCTURE_MISMATCH", "the stack is finite"),
    ("not recorded", "paths with dots of any number of names; a sort of any number of paths",
     f"at most {PATH_MAX_NAMES} names, else the error of a bad path; at most {SORT_MAX_FIELDS} paths, else"
     " SORT_CLAUSE_INVALID", "one command's work is bounded"),
    ("not recorded", "the option `indexing` with paths of any length together",
     f"at most {INDEXING_MAX_UTF16:,} characters, else INVALID_INDEXING_DEFINITION", "every command reads them"),
    ("not recorded", "several wrong things in one request: which is told depends on where each stands in its text",
     "what is no JSON is told first", "the text is read whole, then looked at"),
    ("not recorded", "dropTable with the name of a collection drops it", "CANNOT_DROP_UNKNOWN_TABLE",
     "deleteCollection deletes collections"),
    ("not recorded", "`$set` of `$vector`, or a replacement with it, in a collection without vectors: kept, and found"
     " by nothing", "VECTOR_SEARCH_NOT_SUPPORTED", "as what is inserted"),
    ("not recorded", "a text `_id` that is not indexed: up to 64 KB", "no limit of its own", "there is none to impose"),
    ("not recorded", "numbers are always respelled (`1.0` is kept as `1`)",
     "a document written by a store, not through the server, keeps its spelling",
     "what is stored is passed on as it is"),
    ("not recorded", "an upsert takes over what the filter says at its top level only, and `_id` by `$eq` only",
     "also inside `$and`, and `_id` by an `$in` of one", "repeated, it finds what it inserted"),
    ("not recorded", "of paths that lie over one another, updates notice some",
     "all, targets of `$rename` included: UNSUPPORTED_UPDATE_OPERATION_PARAM", "what would win is an accident"),
    ("not recorded", "an updateMany that fails has changed the documents before", "it has changed nothing",
     "one transaction"),
    ("not recorded", "an updateMany with `upsert` that ends with an empty page inserts a document",
     "only its first page can", "something did match"),
    ("not recorded", "an upsert whose new `_id` is another document's: no document, and no error",
     "DOCUMENT_ALREADY_EXISTS", "the caller can see it"),
    ("not recorded", "an update to a position far beyond an array's end fills it up",
     "SHRED_DOC_LIMIT_VIOLATION where no document has room for that", "memory is finite"),
)  # fmt: skip

ASTRAPY_VERSION: Final = "2.3.2"
ASTRAPY: Final[Remarks] = {
    **dict.fromkeys(
        (
            "command",
            "count_documents",
            "database",
            "delete_many",
            "delete_one",
            "distinct",
            "drop",
            "estimated_document_count",
            "find",
            "find_one",
            "find_one_and_delete",
            "find_one_and_replace",
            "find_one_and_update",
            "full_name",
            "insert_many",
            "insert_one",
            "keyspace",
            "name",
            "options",
            "replace_one",
            "to_async",
            "to_sync",
            "update_many",
            "update_one",
            "with_options",
        ),
        ("yes", ""),
    ),
    "find_and_rerank": ("no", "RERANKING_FEATURE_NOT_ENABLED: no reranking here"),
    "info": ("no", "raises in the client: it asks Astra's DevOps API, which only databases on Astra have"),
}
"""Every public method and property of astrapy's Collection and AsyncCollection."""

_INTRODUCTION: Final = """\
# What the local server answers of the Data API

`lckv serve` and `langchain_kv.server` speak the Data API of version 1.0.51, over HTTP, for *collections*. What they
answer is held against replies recorded from the real server (`tests/conformance`): **yes** means that every recorded
step with it is answered alike; **differs** says how; **no** says what is answered instead, and why. This page is
written by `make coverage-page`.
"""

_ABOUT_FILTERS: Final = """\
*Not recorded*: Apache Cassandra's index, behind the recorded server, refuses these operators on most fields. Here they
are answered as the command reference says, by MongoDB's semantics with types kept apart; `$not` turns `$gt` into
`$lte` and so on, so that neither holds for a field of another type or for none. The conditions inside one element of
`$or` are or-ed, too, as the real server reads them: use `$and` inside where all are to hold. Their refusals (operands,
`_id`) are as recorded.

Dotted paths, positions in arrays (`tags.0`), and the escapes `&.` and `&&`: yes. A path that the collection does not
index is FILTER_PATH_UNINDEXED, and a whole object is compared by its indexed part; a second comparison of `_id` is
FILTER_MULTIPLE_ID_FILTER; over 64 comparisons are
FILTER_FIELDS_LIMIT_VIOLATION. A filter that names ids is answered by key, any other by going through the collection
page by page, so that other requests pass in between.
"""

_REST: Final = """\
## Projections

Inclusion, exclusion, `*`, nested definitions, `$slice` and the escapes: yes. `$vector` is sent only where
a projection asks for it. `$vectorize` and `$lexical` are accepted and have no effect; `$similarity` and every other
path that starts with `$` are UNSUPPORTED_PROJECTION_PARAM.

## Documents

The limits, field names, extended types (`$date`, `$uuid`, `$objectId`, `$binary`), the generators of `defaultId` and
the spelling of numbers: yes. So are the limits that apply to indexed paths only. `$vector`, a list of
numbers, `{"$binary": ...}` or null, is kept and sent as it came; in a collection without vectors it is
VECTOR_SEARCH_NOT_SUPPORTED. `$vectorize` and `$hybrid` are refused, `$lexical` is LEXICAL_NOT_ENABLED_FOR_COLLECTION.

## Vectors

A search compares with every vector of the collection. Their float32 lie in memory from the first search on, up to 1 GiB
for each file (100,000 of 1,536 numbers take 614 MB), and follow what any process writes; beyond that they are read from
the file for each search. In the file a vector takes its text in the document and four bytes a number beside it.

Where the metric is cosine, a vector of zeros, or of no number beyond 1e-6, is INVALID_DATABASE_QUERY, whether it is
inserted, set or sorted by; so is one with a number beyond 1e17, whatever the metric. These are the limits of Astra DB's
database, whose refusal the real server passes on.

## HTTP

`POST /v1`, `/v1/{keyspace}`, `/v1/{keyspace}/{collection}`, and the same below `/api/json`, Astra's path; `GET
/stargate/health`, `/ready` (503 where the engine does not read or take writes), `/live`; `GET /`. One token, or that
of one user and password, in `Token` or `X-Cassandra-Token`, compared in constant time. Bodies up to 20 MiB. No TLS,
no CORS headers, no `/metrics`, no OpenAPI pages.
"""


def page() -> str:
    """Return the page as Markdown."""
    names = [name for commands in COMMANDS for name in commands]
    parts = [
        _INTRODUCTION,
        "## Commands\n\n" + _table("command", names, _COMMANDS),
        "## Options\n\n" + _options(),
        "## Filters\n\n" + _table("operator", (*filters.OPERATORS, *_MORE_FILTERS), _FILTERS),
        _ABOUT_FILTERS,
        "## Sorts\n\n" + _table("sort", _SORTS, _SORTS),
        "## Updates\n\n" + _table("operator", (*update_operators.OPERATORS, "$pullAll"), _UPDATES),
        _REST,
        "## Answered in another way, on purpose\n\n"
        + _rows(("recorded in", "the real server", "here", "why"), _ON_PURPOSE),
        f"## astrapy {ASTRAPY_VERSION}\n\nEach public method and property of `Collection` and `AsyncCollection`, driven"
        " against this server by a test:\n\n" + _table("method", sorted(ASTRAPY), ASTRAPY),
    ]
    return "\n".join(parts)


def _options() -> str:
    users: dict[str, list[str]] = {}
    for commands in COMMANDS:
        for name, command in commands.items():
            for option in command.options:
                users.setdefault(option, []).append(f"`{name}`")
    rows = ((_code(option), ", ".join(names), *_OPTIONS.get(option, ("yes", ""))) for option, names in users.items())
    return _rows(("option", "of", "", "remarks"), rows)


def _table(kind: str, names: Iterable[str], remarks: Remarks) -> str:
    return _rows((kind, "", "remarks"), ((_code(name), *remarks.get(name, ("yes", ""))) for name in names))


def _code(name: str) -> str:
    return name if "`" in name or " " in name else f"`{name}`"


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(_lines(list(head), rows)) + "\n"


def _lines(head: list[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    sys.stdout.write(page())

"""Every number (and one name) that the Data API or this package imposes, once, with its source.

"Measured" means: seen on Data API 1.0.51 in front of Apache Cassandra 5.0.6. "Source" means the Data API's own.
Sizes of text are in UTF-16 units where it says so, because that is what a Java ``String.length()`` counts.
"""

from __future__ import annotations

from typing import Final

# -- keys and documents -----------------------------------------------------------------------------------------

KEY_MAX_BYTES: Final = 8_000
"""UTF-8 bytes of a text ``_id`` in a collection that indexes ``_id`` (source: DocumentLimitsConfig)."""

DOCUMENT_MAX_UTF16: Final = 4_000_000
"""UTF-16 units of the compact JSON of a document, ``_id`` included (source: DocumentLimitsConfig; measured)."""

DOCUMENT_MAX_DEPTH: Final = 16
"""Levels of nesting, the document itself being the first; so a stored value has at most 15 (source; measured)."""

PATH_MAX_UTF16: Final = 1_000
"""UTF-16 units of a path of field names joined by dots, array positions not counted (source; measured)."""

NUMBER_MAX_DIGITS: Final = 100
"""Digits of a number: integer, fraction and exponent digits; signs, point and ``e`` not counted (source; measured)."""

LAST_MOMENT_MS: Final = 253_402_300_799_999
"""The end of the year 9999 in Unix time, after which the dates of many clients end."""

DEFAULT_KEYSPACE: Final = "default_keyspace"
"""The keyspace that is used where none is named, and that every embedded database starts with (as Astra DB does)."""

NAME_MAX_LENGTH: Final = 48
"""Characters of a keyspace or collection name: ASCII letters, digits and underscores (source: naming rule)."""

BYTES_VALUE_MAX: Final = 2_990_000
"""Bytes of a value in a byte store whatever its key: base64 makes 4 characters of 3, under DOCUMENT_MAX_UTF16."""

# -- values at indexed paths ------------------------------------------------------------------------------------

INDEXED_STRING_MAX_BYTES: Final = 8_000
"""UTF-8 bytes of a text value at an indexed path (source: DocumentLimitsConfig)."""

INDEXED_ARRAY_MAX_LENGTH: Final = 1_000
"""Elements of an array at an indexed path (source: DocumentLimitsConfig)."""

INDEXED_OBJECT_MAX_PROPERTIES: Final = 1_000
"""Properties of one object at an indexed path (source: DocumentLimitsConfig)."""

INDEXED_DOCUMENT_MAX_PROPERTIES: Final = 2_000
"""Indexed properties of a whole document (source: DocumentLimitsConfig)."""

# -- requests ---------------------------------------------------------------------------------------------------

BODY_MAX_BYTES: Final = 20 * 1024 * 1024
"""Bytes of a request body; one more is answered with HTTP 413 and an empty body (measured)."""

INSERT_MANY_MAX: Final = 100
"""Documents of one insertMany (source: OperationsConfig; measured)."""

IN_MAX: Final = 100
"""Values of one ``$in`` (source: OperationsConfig; measured)."""

DELETE_MANY_MAX: Final = 20
"""Documents that one deleteMany removes before it answers ``moreData`` (source: OperationsConfig; measured)."""

UPDATE_MANY_MAX: Final = 50
"""Documents that one updateMany changes before it answers ``moreData`` (source; the page size of a find)."""

PAGE_SIZE: Final = 50
"""Documents of one page of a find; a client must not rely on it (measured; 20 before 1.0.48)."""

COUNT_MAX: Final = 1_000
"""The most that countDocuments counts before it answers ``moreData`` (source: OperationsConfig)."""

FILTER_MAX_EXPRESSIONS: Final = 64
"""Comparisons in one filter (source: OperationsConfig)."""

SORT_MAX_FIELDS: Final = 64
"""Paths in one sort: as many as comparisons in a filter (our own: the local server keeps a key a path and document)."""

PATH_MAX_NAMES: Final = 100
"""Names of one path with dots (our own: a document nests far less, and what is read of a path takes room for each)."""

INDEXING_MAX_UTF16: Final = 100_000
"""Characters of all paths of a collection's option ``indexing`` (our own: it is read with every command)."""

VECTOR_MAX_DIMENSION: Final = 4_096
"""Numbers of a vector (source: DocumentLimitsConfig)."""

VECTOR_MAX_NUMBER: Final = 1e17
"""The largest number of a vector, without its sign (source: VectorValidation of Astra DB's Cassandra; measured with
Apache Cassandra 5.0)."""

VECTOR_NEAR_ZERO: Final = 1e-6
"""A vector without a number further from zero has no direction for the metric cosine (source: the same)."""

VECTOR_SEARCH_MAX: Final = 1_000
"""Documents that a search by vector answers, all in one page (source: OperationsConfig, FindOptionsValidation)."""

SORT_MAX_ROWS: Final = 10_000
"""Documents that an in-memory sort takes before it is refused (source: OperationsConfig)."""

# -- the client's own choices -----------------------------------------------------------------------------------

REQUEST_TIMEOUT_S: Final = 30.0
"""Seconds for one HTTP request, reply included."""

DEADLINE_S: Final = 60.0
"""Seconds that an operation goes on trying without any success."""

FILE_WAIT_S: Final = 30.0
"""Seconds that a call on a file waits for other processes and programs, where no ``deadline_s`` says otherwise."""

WAKE_TIMEOUT_S: Final = 180.0
"""Seconds that a hibernated Astra database is waited for: resuming takes minutes (source: Astra DB's documentation)."""

FIRST_CONTACT_S: Final = 5.0
"""Seconds that an endpoint may refuse connections where nothing ever answered: a local server starts within them, and a
wrong address is told soon."""

NEW_COLLECTION_S: Final = 30.0
"""Seconds after a set-up in which a collection that does not exist is waited for: while several processes make it, it
is listed before it can be used, and the Data API drops it again where two creations meet (source:
CreateCollectionOperation; one takes 10 s and more, measured)."""

FEW_KEYS: Final = 4
"""A batch of at most this many keys is upserted key by key: one round trip whether they exist or not (measured)."""

REQUEST_BODY_TARGET_BYTES: Final = 15 * 1024 * 1024
"""Bytes of documents that the client puts in one insertMany: well under BODY_MAX_BYTES."""

SQLITE_IN_MAX: Final = 500
"""Ids in one SQLite statement: measured no slower than any larger number, and within every SQLite's limit."""

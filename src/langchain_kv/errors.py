"""Every error this package raises, in one tree.

::

    StoreError                            .retryable  .applied ("did my write happen?")
    |- UsageError (ValueError)            the call or the set-up is wrong; nothing was sent or stored
    |  |- UnsupportedError                this target cannot do what was asked; the message says what can
    |  |- ConfigError                     no endpoint, a bad URL, a bad collection name, two keyspaces
    |  |- InvalidKeyError                 not a non-empty string of at most 8,000 UTF-8 bytes
    |  |- InvalidValueError               not JSON, or too large
    |  |  '- InvalidValueTypeError (TypeError)
    |  '- SetupPendingError               a sync call, on the loop's thread, before ASYNC set-up is done
    |- StoreClosedError                   the store was used after close()
    |- TransportError                     no usable answer from a service
    |  |- ConnectError                    the request never left
    |  |- RequestTimeoutError (TimeoutError)
    |  '- BadReplyError                   not an answer of the Data API: a gateway's page, 5xx, 429
    |- DataAPIError                       the service (or the local engine, in its words) said no: .code .scope
    |  |- AuthError
    |  |- UnknownCollectionError
    |  |- UnknownKeyspaceError
    |  |- DocumentExistsError
    |  |- LimitError
    |  '- CollectionConflictError (AstraDBError, ValueError)
    |- AstraDBError                       upstream's name for a collection that does not fit
    |- PartialWriteError (ValueError)     .written .unwritten .unknown .errors
    |- DamagedValueError (ValueError)     .errors (key -> reason), .values (the good ones)
    |- BadVectorError (ValueError)        an embedding model's answer is not one vector for each text
    '- EngineError                        local storage failed
       |- EngineFileError (ValueError)    not a langchain-kv file, or one of a newer version
       '- EngineBusyError                 another process held the file's lock for too long

``retryable`` says whether the same call may succeed later. ``applied`` answers "did my write happen?": True, False, or
None where that cannot be known. Errors are picklable and never hold a token or a value.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, ClassVar, NamedTuple

__all__ = [
    "AstraDBError",
    "AuthError",
    "BadReplyError",
    "BadVectorError",
    "CollectionConflictError",
    "ConfigError",
    "ConnectError",
    "DamagedValueError",
    "DataAPIError",
    "DocumentExistsError",
    "EngineBusyError",
    "EngineError",
    "EngineFileError",
    "InvalidKeyError",
    "InvalidValueError",
    "InvalidValueTypeError",
    "LimitError",
    "PartialWriteError",
    "RequestTimeoutError",
    "SetupPendingError",
    "StoreClosedError",
    "StoreError",
    "TransportError",
    "UnknownCollectionError",
    "UnknownKeyspaceError",
    "UnsupportedError",
    "UsageError",
]


class StoreError(Exception):
    """The root of every error that this package raises on purpose.

    Attributes:
        retryable: whether the same call may succeed later, unchanged.
        applied: whether the write happened: True, False, or None where it cannot be known.
    """

    retryable: bool = False
    applied: bool | None = False


class UsageError(StoreError, ValueError):
    """The call or the set-up is wrong; nothing was sent and nothing was stored."""


class UnsupportedError(UsageError):
    """The target cannot do what was asked, such as change a value in one step with reading it; nothing was done."""


class ConfigError(UsageError):
    """The arguments, the environment or the URL do not name a place to keep values."""


class InvalidKeyError(UsageError):
    """A key is not a non-empty string of at most 8,000 bytes of UTF-8."""


class InvalidValueError(UsageError):
    """A value cannot be stored: it is not JSON, or its document is too large."""


class InvalidValueTypeError(InvalidValueError, TypeError):
    """A value holds a Python type that JSON does not have."""


class SetupPendingError(UsageError):
    """A synchronous call on the event loop's thread came before the asynchronous set-up was done."""

    retryable = True


class StoreClosedError(StoreError):
    """The store was used after ``close()`` or ``aclose()``."""


class TransportError(StoreError):
    """No usable answer came back from the service."""

    retryable = True
    applied: bool | None = None


class ConnectError(TransportError):
    """No connection could be made: the request never left."""

    applied = False


class RequestTimeoutError(TransportError, TimeoutError):
    """The request was sent, and no answer came in time."""


class BadReplyError(TransportError):
    """The answer is not one of the Data API: a gateway's page, a 5xx, a 429, cut or broken JSON.

    Attributes:
        http_status: the HTTP status of the answer, or None where there was none.
    """

    http_status: int | None = None

    def __init__(self, *args: object, http_status: int | None = None) -> None:
        super().__init__(*args)
        if http_status is not None:
            self.http_status = http_status


class AstraDBError(StoreError):
    """Upstream's name for a collection that exists and does not fit."""


class ErrorCode(NamedTuple):
    """What the Data API says of one of its error codes.

    Attributes:
        code: the name of the error, such as ``DOCUMENT_ALREADY_EXISTS``.
        family: ``REQUEST`` (the caller's fault) or ``SERVER``.
        scope: the part of a request or service the code belongs to; may be empty.
        http_status: the HTTP status that carries it: 200 for all but four.
        retryable: whether the service itself calls the condition passing.
    """

    code: str
    family: str
    scope: str
    http_status: int = 200
    retryable: bool = False


def _codes() -> dict[str, ErrorCode]:
    """The codes that a collection's client can meet (Data API 1.0.51: its source, and replies recorded from it)."""
    table: dict[tuple[str, str], str] = {
        ("REQUEST", ""): "REQUEST_NOT_JSON REQUEST_STRUCTURE_MISMATCH COMMAND_UNKNOWN COMMAND_FIELD_UNKNOWN"
        " COMMAND_FIELD_VALUE_INVALID COMMAND_ACCEPTS_NO_OPTIONS UNSUPPORTED_COLLECTION_COMMAND"
        " UNSUPPORTED_TABLE_COMMAND INVALID_CREATE_COLLECTION_FIELD UNSUPPORTED_CONTENT_TYPE",
        ("REQUEST", "SECURITY"): "MISSING_AUTHENTICATION_TOKEN UNAUTHENTICATED_REQUEST UNAUTHORIZED_ACCESS",
        ("REQUEST", "WARNING"): "DEPRECATED_COMMAND",
        ("REQUEST", "SCHEMA"): "UNKNOWN_KEYSPACE UNKNOWN_COLLECTION_OR_TABLE EXISTING_COLLECTION_DIFFERENT_SETTINGS"
        " EXISTING_TABLE_NOT_DATA_API_COLLECTION INVALID_INDEXING_DEFINITION INVALID_CREATE_COLLECTION_OPTIONS"
        " UNSUPPORTED_SCHEMA_NAME TOO_MANY_COLLECTIONS TOO_MANY_INDEXES_FOR_COLLECTION EXISTING_INDEX_FOR_COLLECTION"
        " VECTOR_SEARCH_NOT_SUPPORTED VECTOR_SEARCH_TOO_BIG_VALUE VECTORIZE_FEATURE_NOT_AVAILABLE"
        " LEXICAL_NOT_ENABLED_FOR_COLLECTION LEXICAL_NOT_AVAILABLE_FOR_DATABASE"
        " RERANKING_FEATURE_NOT_ENABLED EMBEDDING_SERVICE_NOT_CONFIGURED CANNOT_DROP_UNKNOWN_TABLE"
        " CANNOT_DROP_UNKNOWN_INDEX CANNOT_DROP_UNKNOWN_TYPE",
        ("REQUEST", "DOCUMENT"): "DOCUMENT_ALREADY_EXISTS DOCUMENT_REPLACE_DIFFERENT_DOCID SHRED_BAD_DOCID_TYPE"
        " SHRED_BAD_DOCID_VALUE SHRED_BAD_DOCUMENT_TYPE SHRED_BAD_EJSON_VALUE SHRED_BAD_FIELD_NAME"
        " SHRED_DOC_LIMIT_VIOLATION SHRED_BAD_VECTOR_SIZE SHRED_BAD_VECTOR_VALUE SHRED_BAD_BINARY_VECTOR_VALUE"
        " SHRED_BAD_DOCUMENT_VECTOR_TYPE INVALID_VECTOR_LENGTH",
        ("REQUEST", "FILTER"): "FILTER_INVALID_EXPRESSION FILTER_UNSUPPORTED_OPERATOR FILTER_UNSUPPORTED_DATA_TYPE"
        " FILTER_MULTIPLE_ID_FILTER FILTER_ID_NOT_INDEXED FILTER_PATH_UNINDEXED FILTER_FIELDS_LIMIT_VIOLATION",
        ("REQUEST", "SORT"): "SORT_CLAUSE_INVALID SORT_CLAUSE_VALUE_INVALID SORT_CLAUSE_PATH_INVALID"
        " SORT_CLAUSE_PATH_UNINDEXED OVERLOADED_SORT_ROW_LIMIT",
        ("REQUEST", "PROJECTION"): "UNSUPPORTED_PROJECTION_PARAM UNSUPPORTED_PROJECTION_DEFINITION",
        ("REQUEST", "UPDATE"): "UNSUPPORTED_UPDATE_OPERATION UNSUPPORTED_UPDATE_OPERATION_PARAM"
        " UNSUPPORTED_UPDATE_OPERATION_PATH UNSUPPORTED_UPDATE_OPERATION_TARGET UNSUPPORTED_UPDATE_OPERATION_MODIFIER"
        " UNSUPPORTED_UPDATE_DATA_TYPE UNSUPPORTED_UPDATE_OPERATOR_FOR_DOC_ID UNSUPPORTED_UPDATE_OPERATOR_FOR_VECTOR"
        " UNSUPPORTED_UPDATE_OPERATOR_FOR_VECTORIZE UNSUPPORTED_UPDATE_OPERATOR_FOR_LEXICAL",
        ("SERVER", "DATABASE"): "CORRUPTED_COLLECTION_SCHEMA INVALID_DATABASE_QUERY UNSUPPORTED_DATABASE_QUERY"
        " COLLECTION_SCHEMA_VERSION_INVALID DOCUMENT_FROM_DB_UNPARSEABLE UNEXPECTED_DOCUMENT_ID_TYPE",
        ("SERVER", ""): "UNEXPECTED_SERVER_ERROR INTERNAL_SERVER_ERROR",
    }
    # The first is all that the driver says while nodes restart, too; where its cause comes again, the reply tells it.
    passing = (
        "UNEXPECTED_DRIVER_ERROR FAILED_CONCURRENT_OPERATIONS FAILED_COMPARE_AND_SET TIMEOUT_WRITING_DATA"
        " TIMEOUT_READING_DATA UNAVAILABLE_DATABASE FAILED_READ_REQUEST FAILED_WRITE_REQUEST FAILED_TRUNCATION"
        " FAILED_TO_CONNECT_TO_DATABASE FAILED_TO_READ_METADATA COUNT_READ_FAILED"
    )
    statuses = {
        "MISSING_AUTHENTICATION_TOKEN": 401,
        "UNAUTHENTICATED_REQUEST": 401,
        "UNAUTHORIZED_ACCESS": 401,
        "UNSUPPORTED_CONTENT_TYPE": 415,
    }
    codes = {
        name: ErrorCode(name, family, scope, statuses.get(name, 200))
        for (family, scope), names in table.items()
        for name in names.split()
    }
    codes.update({name: ErrorCode(name, "SERVER", "DATABASE", 200, True) for name in passing.split()})
    return codes


CODES: dict[str, ErrorCode] = _codes()
"""The Data API's error codes, by name. UNKNOWN_KEYSPACE is of scope SCHEMA; of scope DATABASE it is a passing fault."""


class DataAPIError(StoreError):
    """The Data API refused the request; embedded engines use the same codes for the same conditions.

    Attributes:
        code: the error code, such as ``SHRED_DOC_LIMIT_VIOLATION``; may be one this package does not know.
        family: ``REQUEST`` or ``SERVER``.
        scope: such as ``DOCUMENT`` or ``SCHEMA``; may be empty.
        title: the service's short text for the code.
        http_status: the HTTP status that carried it.
        document_ids: the ids of the documents concerned, where the service names them.
    """

    code: str = ""
    family: str = "REQUEST"
    scope: str = ""
    title: str = ""
    http_status: int = 200
    document_ids: tuple[Any, ...] = ()

    _by_code: ClassVar[dict[str, type[DataAPIError]]] = {}

    def __init_subclass__(cls, codes: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for code in codes:
            DataAPIError._by_code[code] = cls

    @classmethod
    def of(
        cls,
        code: str,
        message: str,
        *,
        title: str = "",
        family: str | None = None,
        scope: str | None = None,
        http_status: int | None = None,
        document_ids: tuple[Any, ...] = (),
    ) -> DataAPIError:
        """Make the error of the class registered for ``code``; an unknown code makes a plain DataAPIError.

        Args:
            code: the Data API's name of the error.
            message: what was tried, the limit or the cause, and the next step.
            title: the service's short text for the code.
            family: overrides the table's.
            scope: overrides the table's.
            http_status: overrides the table's.
            document_ids: the ids of the documents concerned.
        """
        known = CODES.get(code, ErrorCode(code, "REQUEST", ""))
        error = cls._by_code.get(code, DataAPIError)(message)
        error.code = code
        error.family = known.family if family is None else family
        error.scope = known.scope if scope is None else scope
        error.title = title or code.replace("_", " ").capitalize()
        error.http_status = known.http_status if http_status is None else http_status
        error.document_ids = document_ids
        error.retryable = known.retryable or (error.scope == "DATABASE" and code == "UNKNOWN_KEYSPACE")
        # A fault inside the service leaves open what was stored; a refused request changed nothing.
        error.applied = None if error.family == "SERVER" else False
        return error


class AuthError(DataAPIError, codes=("MISSING_AUTHENTICATION_TOKEN", "UNAUTHENTICATED_REQUEST", "UNAUTHORIZED_ACCESS")):
    """The token is missing, wrong, or not allowed to do this."""


class UnknownCollectionError(DataAPIError, codes=("UNKNOWN_COLLECTION_OR_TABLE",)):
    """The collection does not exist (raised on every kind of target)."""


class UnknownKeyspaceError(DataAPIError, codes=("UNKNOWN_KEYSPACE",)):
    """The keyspace does not exist (raised on every kind of target)."""


class DocumentExistsError(DataAPIError, codes=("DOCUMENT_ALREADY_EXISTS",)):
    """A document with this id is already there."""


class LimitError(
    DataAPIError, codes=("SHRED_DOC_LIMIT_VIOLATION", "TOO_MANY_COLLECTIONS", "TOO_MANY_INDEXES_FOR_COLLECTION")
):
    """A limit of the service was exceeded."""


class CollectionConflictError(
    DataAPIError, AstraDBError, ValueError, codes=("EXISTING_COLLECTION_DIFFERENT_SETTINGS",)
):
    """The collection exists with other settings; the message says which."""


class PartialWriteError(StoreError, ValueError):
    """A batch of writes was carried out only in part. Every request has ended: nothing goes on writing.

    Attributes:
        written: keys whose write is known to have happened.
        unwritten: keys whose write is known not to have happened.
        unknown: keys whose write may or may not have happened.
        errors: the error behind each unwritten or unknown key.
    """

    written: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    errors: dict[str, StoreError]

    def __init__(
        self,
        *args: object,
        written: tuple[str, ...] = (),
        unwritten: tuple[str, ...] = (),
        unknown: tuple[str, ...] = (),
        errors: dict[str, StoreError] | None = None,
    ) -> None:
        super().__init__(*args)
        self.written, self.unwritten, self.unknown = written, unwritten, unknown
        self.errors = dict(errors or {})
        self.retryable = bool(self.errors) and all(error.retryable for error in self.errors.values())
        self.applied = None if written or unknown else False

    @classmethod
    def of(
        cls,
        done: str,
        *,
        written: tuple[str, ...],
        unwritten: tuple[str, ...],
        unknown: tuple[str, ...],
        errors: dict[str, StoreError],
        shown: Callable[[str], str] = repr,
        is_repeatable: bool = True,
    ) -> PartialWriteError:
        """Make the error of a batch, with the text that every target has for it.

        Args:
            done: what was done with the written keys, such as ``stored``.
            written: see the attributes.
            unwritten: likewise.
            unknown: likewise.
            errors: likewise; at least one.
            shown: how the text shows a key.
            is_repeatable: whether the batch may be sent again as it is; else the text says what to do first.
        """
        names = ", ".join(shown(key) for key in islice(errors, 3))
        advice = "Repeating the call is safe."
        if not is_repeatable:
            advice = "Read the unknown ones, and repeat the call with the unwritten ones."
        return cls(
            f"{len(written)} of {len(written) + len(unwritten) + len(unknown)} keys were {done}; the others"
            f" ({names}{', ...' if len(errors) > 3 else ''}) failed, the first with: {next(iter(errors.values()))} See"
            f" .written, .unwritten, .unknown and .errors. {advice}",
            written=written,
            unwritten=unwritten,
            unknown=unknown,
            errors=errors,
        )


class DamagedValueError(StoreError, ValueError):
    """Stored values cannot be read back; the other values of the batch were.

    Attributes:
        errors: why, by key.
        values: the values that could be read, by key.
    """

    errors: dict[str, str]
    values: dict[str, Any]

    def __init__(
        self, *args: object, errors: dict[str, str] | None = None, values: dict[str, Any] | None = None
    ) -> None:
        super().__init__(*args)
        self.errors = dict(errors or {})
        self.values = dict(values or {})


class BadVectorError(StoreError, ValueError):
    """An embedding model did not answer one vector of finite numbers, all of one length, for each text.

    Where it is known whose the others of the answer are, they were cached.
    """


class EngineError(StoreError):
    """Local storage failed: the disk is full, the file is damaged or cannot be opened."""


class EngineFileError(EngineError, ValueError):
    """The file is not one of langchain-kv, or a newer version of langchain-kv wrote it; it was left untouched."""


class EngineBusyError(EngineError):
    """Another process held the file's lock for too long."""

    retryable = True

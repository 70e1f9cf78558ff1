"""What the driver's exceptions mean: the foreign errors end here."""

from __future__ import annotations

from typing import Final

import cassandra
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException
from cassandra.protocol import (
    ErrorMessage,
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
    ServerError,
    TruncateError,
)

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace
from langchain_kv.errors import AuthError, ConnectError, DataAPIError, RequestTimeoutError, StoreError, TransportError

__all__ = ["IN_REFUSED", "is_slow", "not_connected", "nothing_listens", "translated"]

IN_REFUSED: Final = "IN_REFUSED"
"""The code of a statement that a guardrail refused for the number of its keys."""

_TEXT_MAX: Final = 300

_PASSING: Final = (OverloadedErrorMessage, IsBootstrappingErrorMessage, ServerError, TruncateError)
"""What a node says when it cannot just now; other errors of theirs come again with the same statement."""

_CAS_UNKNOWN: Final = 0x1700
"""The native protocol's code where nobody knows whether a condition held; the driver has no class for it."""


def not_connected(error: Exception, settings: ClusterSettings) -> StoreError:
    """Return what a failed connection means."""
    causes = _causes(error)
    hosts = settings.shown()
    for cause in causes:
        if isinstance(cause, cassandra.AuthenticationFailed):
            return DataAPIError.of(
                "UNAUTHENTICATED_REQUEST", f"The cluster at {hosts} did not accept the login: {_login_advice(settings)}"
            )
    if is_slow(error):
        return ConnectError(
            f"A node of the cluster at {hosts} answered, but not all that the driver asks first within"
            f" {settings.connect_timeout_s:g} s: try again when it has less to do, or raise connect_timeout_s= in the"
            " URL."
        )
    named = ", ".join(f"{type(cause).__name__}: {cause}"[:_TEXT_MAX] for cause in causes[:3])
    if settings.bundle:
        advice = "whether the bundle is the database's newest, and the database is awake"
    elif settings.ssl:
        # A node that misses the client's certificate just hangs up, so the cause does not always tell.
        advice = (
            "the hosts, the port, ca_file= (who signed the nodes' certificates), cert_file= (where the cluster asks for"
            " one), verify_hostname= and whether the cluster is up"
        )
    else:
        advice = "the hosts, the port, ssl= and whether the cluster is up"
    return ConnectError(f"No node of the cluster at {hosts} could be reached ({named}): check {advice}.")


def nothing_listens(error: Exception) -> bool:
    """Tell whether a connection failed because no node listens yet: what else may be wrong would be so again."""
    causes = _causes(error)
    return bool(causes) and all(isinstance(cause, ConnectionRefusedError) for cause in causes)


def is_slow(error: Exception) -> bool:
    """Tell whether a connection failed because a node that had answered did not go on in time."""
    # Where a connection could not even be made in time, ``errors`` says so.
    return any(isinstance(cause, cassandra.OperationTimedOut) and cause.errors is None for cause in _causes(error))


def _causes(error: Exception) -> list[Exception]:
    return list(error.errors.values()) if isinstance(error, NoHostAvailable) else [error]


def _login_advice(settings: ClusterSettings) -> str:
    if settings.password is not None:
        return f"check {'the token' if settings.bundle else 'user and password in the cassandra: URL'}."
    if settings.bundle:
        return (
            "no token was given. Give token=, or set ASTRA_DB_APPLICATION_TOKEN: also in the process that unpickles a"
            " store, because a pickle carries no token."
        )
    return (
        "no password was given. Write it into the cassandra: URL, USER:PASSWORD@HOST. A store that was unpickled has"
        " none, because a pickle carries none: there, set ASTRA_DB_API_ENDPOINT to the whole URL, before unpickling."
    )


def translated(error: BaseException, collection: CollectionName | None, *, writes: bool) -> StoreError:
    """Return what a failed statement means.

    Args:
        error: the driver's.
        collection: what the statement was about; None for no collection.
        writes: whether it was to change something. Then ``applied`` says whether it did, None where nobody knows.
    """
    found = _meaning(error, collection)
    if not writes:
        found.applied = False
    return found


def _meaning(error: BaseException, collection: CollectionName | None) -> StoreError:
    about = f" on collection '{collection.name}'" if collection else ""
    text = str(error)[:_TEXT_MAX]
    if isinstance(error, StoreError):
        return error
    if isinstance(error, cassandra.Unavailable):
        return _failure(
            "UNAVAILABLE_DATABASE",
            f"Too few replicas are up for a statement{about} ({error.alive_replicas} of {error.required_replicas}):"
            " nothing was done; try again when more nodes are up.",
            applied=False,
        )
    if isinstance(error, cassandra.OperationTimedOut):
        return RequestTimeoutError(
            f"A statement{about} was not answered in time: try again, or raise request_timeout_s= in the URL."
        )
    if isinstance(error, cassandra.Timeout | cassandra.CoordinationFailure):
        return _replicas_failed(error, about, text)
    if isinstance(error, cassandra.Unauthorized):
        return AuthError.of(
            "UNAUTHORIZED_ACCESS", f"The user of the URL may not do this{about}: {text}. Grant it, or use another user."
        )
    if isinstance(error, NoHostAvailable):
        return ConnectError(f"No node was there for a statement{about}: {text}. Try again when the cluster is up.")
    if isinstance(error, cassandra.InvalidRequest):
        return _refused(text, collection, about)
    if isinstance(error, ConnectionException | OSError):
        return TransportError(f"The connection to a node was lost during a statement{about}: {text}. Try again.")
    if isinstance(error, ErrorMessage) and getattr(error, "code", None) == _CAS_UNKNOWN:
        return _failure(
            "FAILED_COMPARE_AND_SET",
            f"The cluster does not know whether a write{about} happened: {text}",
            applied=None,
        )
    known = isinstance(error, ErrorMessage | cassandra.DriverException)
    said = f"The cluster failed on a statement{about}: {text}" if known else f"The driver failed on a statement{about}"
    failure = _failure("UNEXPECTED_DRIVER_ERROR", f"{said} ({type(error).__name__}).", applied=None)
    failure.retryable = isinstance(error, _PASSING)
    return failure


def _replicas_failed(error: BaseException, about: str, text: str) -> DataAPIError:
    if isinstance(error, cassandra.ReadTimeout):
        return _failure("TIMEOUT_READING_DATA", f"The replicas did not answer a read{about} in time: try again.")
    if isinstance(error, cassandra.WriteTimeout):
        return _failure(
            "TIMEOUT_WRITING_DATA",
            f"The replicas did not answer a write{about} in time: whether it happened is not known.",
            applied=None,
        )
    code = "FAILED_READ_REQUEST" if isinstance(error, cassandra.ReadFailure) else "FAILED_WRITE_REQUEST"
    return _failure(code, f"Replicas failed on a statement{about}: {text}", applied=None)


def _refused(text: str, collection: CollectionName | None, about: str) -> StoreError:
    if "does not exist" in text or "unconfigured table" in text or "No keyspace" in text:
        if collection is not None:
            is_keyspace = "keyspace" in text.lower()
            return unknown_keyspace(collection.keyspace) if is_keyspace else unknown_collection(collection)
    elif "partition_keys_in_select" in text or "partition keys in IN" in text:
        return _failure(IN_REFUSED, f"The cluster limits the keys of a statement{about}: {text}", applied=False)
    return _failure("INVALID_DATABASE_QUERY", f"The cluster refused a statement{about}: {text}", applied=False)


def _failure(code: str, message: str, *, applied: bool | None = False) -> DataAPIError:
    error = DataAPIError.of(code, message)
    error.applied = applied
    return error

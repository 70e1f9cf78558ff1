"""The envelope of every answer: ``data``, ``status`` and ``errors``, each left out where there is nothing to say."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from langchain_kv.errors import ConnectError, DataAPIError, EngineBusyError, StoreError
from langchain_kv.values.json_text import write

__all__ = ["Reply", "document_data", "documents_data", "error_entry", "failed", "storage_failed"]

logger = logging.getLogger("langchain_kv")

_MESSAGE_MAX = 4_000

_COMES_AGAIN = "\n\nError Class: EngineError"
"""By such a line, in which the Data API names its driver's exception, clients see that another try is in vain."""


class Reply(NamedTuple):
    """What a command answers.

    Attributes:
        data: the JSON text of ``data``, or None.
        status: the fields of ``status``; empty leaves it out.
        errors: what went wrong, in the order of the request.
    """

    data: bytes | None = None
    status: dict[str, Any] | None = None
    errors: Sequence[DataAPIError] = ()

    @property
    def http_status(self) -> int:
        """200, unless one of the errors says otherwise."""
        return next((error.http_status for error in self.errors if error.http_status != 200), 200)

    def encoded(self) -> bytes:
        """Return the JSON text of the envelope."""
        parts = []
        if self.data is not None:
            parts.append(b'"data":' + self.data)
        if self.status:
            parts.append(b'"status":' + write(self.status))
        if self.errors:
            parts.append(b'"errors":' + write([error_entry(error) for error in self.errors]))
        return b"{" + b",".join(parts) + b"}"


def failed(error: DataAPIError) -> Reply:
    """Return the reply of a command that failed as a whole."""
    return Reply(errors=(error,))


def storage_failed(error: StoreError, document_ids: tuple[Any, ...] = ()) -> DataAPIError:
    """Return what a client is told of an error of the engine.

    Args:
        error: the engine's.
        document_ids: the ids of the documents concerned, where not the whole command failed.
    """
    if isinstance(error, DataAPIError):
        code, scope = error.code, error.scope
    elif isinstance(error, EngineBusyError):
        code, scope = "UNAVAILABLE_DATABASE", None
    else:
        logger.error("The storage failed: %s", error)
        code, scope = (
            "FAILED_TO_CONNECT_TO_DATABASE" if isinstance(error, ConnectError) else "UNEXPECTED_DRIVER_ERROR",
            None,
        )
    told = DataAPIError.of(code, str(error), scope=scope, document_ids=document_ids)
    told.retryable = error.retryable
    return told


def document_data(body: bytes | None) -> bytes:
    """Return the ``data`` of one document, or of none."""
    return b'{"document":' + (body or b"null") + b"}"


def documents_data(bodies: Iterable[bytes], next_page_state: str | None) -> bytes:
    """Return the ``data`` of a page of documents; their texts are passed on as they are."""
    return b'{"documents":[' + b",".join(bodies) + b'],"nextPageState":' + write(next_page_state) + b"}"


def error_entry(error: DataAPIError) -> dict[str, Any]:
    """Return what stands in ``errors`` (or in ``status.warnings``) for an error."""
    is_final = error.code == "UNEXPECTED_DRIVER_ERROR" and not error.retryable
    entry: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "family": error.family,
        "scope": error.scope,
        "errorCode": error.code,
        "title": error.title,
        "message": _sendable(str(error)) + (_COMES_AGAIN if is_final else ""),
    }
    if error.document_ids:
        entry["documentIds"] = list(error.document_ids)
    return entry


def _sendable(text: str) -> str:
    """Cut a message, and replace lone surrogates of a refused request, which no reply could carry."""
    return text[:_MESSAGE_MAX].encode("utf-8", "replace").decode()

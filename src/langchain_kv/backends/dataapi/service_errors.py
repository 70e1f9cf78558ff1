"""What errors in the Data API's answers mean, and answers that are none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from langchain_kv import limits
from langchain_kv.backends.dataapi import causes
from langchain_kv.errors import BadReplyError, DataAPIError, LimitError

__all__ = ["bad_status", "error_of", "ids_of", "no_envelope", "refuse"]

_HINTS = {
    "UNKNOWN_COLLECTION_OR_TABLE": "Opening the store with SetupMode.SYNC creates it.",
    "UNKNOWN_KEYSPACE": "Check the keyspace's name, or create it.",
    "MISSING_AUTHENTICATION_TOKEN": "Give a token (token=, or ASTRA_DB_APPLICATION_TOKEN).",
    "UNAUTHENTICATED_REQUEST": "Check the token (token=, or ASTRA_DB_APPLICATION_TOKEN).",
    "UNAUTHORIZED_ACCESS": "Check what the token is allowed to do.",
}
TITLE_MAX = 200
_TITLE = re.compile(rb"<(title|h1)[^>]*>([^<]{1,400})<", re.IGNORECASE)


def ids_of(entry: Mapping[str, Any]) -> list[Any]:
    """Return the ids of the documents that an error names."""
    ids = entry.get("documentIds")
    return ids if isinstance(ids, list) else []


def error_of(entry: Mapping[str, Any], status: int, what: str) -> DataAPIError:
    """Return the exception of an error in an answer; ``what`` was tried."""
    code = str(entry.get("errorCode") or "UNKNOWN_ERROR")
    scope = str(entry.get("scope") or "")
    title = causes.cut(" ".join(str(entry.get("title") or "").split()), TITLE_MAX)
    message = str(entry.get("message") or "")
    detail = causes.told(message, code, scope)
    is_final = code == "UNEXPECTED_DRIVER_ERROR" and causes.is_deterministic(message)
    if code == "INVALID_DATABASE_QUERY" and causes.names_no_table(message):
        code, scope = "UNKNOWN_COLLECTION_OR_TABLE", "SCHEMA"  # dropped, or made anew, behind the service's back
    text = ". ".join(part.rstrip(".") for part in (f"{what} failed: {code}", title, detail) if part) + "."
    hint = _HINTS.get(code)
    error = DataAPIError.of(
        code,
        f"{text} {hint}" if hint else text,
        title=title,
        family=str(entry.get("family") or "REQUEST"),
        scope=scope,
        http_status=status,
        document_ids=tuple(ids_of(entry)),
    )
    if is_final:
        error.retryable = False
    return error


def no_envelope(status: int, what: str) -> BadReplyError:
    """Return the error of an answer that is not one of the Data API."""
    return BadReplyError(
        f"The answer to {what} is not one of the Data API: broken or cut JSON, or another service's. Check the"
        " endpoint.",
        http_status=status,
    )


def refuse(status: int, body: bytes | bytearray, what: str) -> None:
    """Raise the error of an answer whose HTTP status is not 200."""
    try:
        reply = msgspec.json.decode(body)
        errors = reply.get("errors") if isinstance(reply, dict) else None
    except (ValueError, RecursionError):
        errors = None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict) and errors[0].get("errorCode"):
        raise error_of(errors[0], status, what)
    if status == 401:
        raise DataAPIError.of(
            "UNAUTHENTICATED_REQUEST", f"{what} was refused (HTTP 401). {_HINTS['UNAUTHENTICATED_REQUEST']}"
        )
    if status == 413:
        error = LimitError(
            f"{what} was refused: the request is too large (HTTP 413). The Data API takes"
            f" {limits.BODY_MAX_BYTES:,} bytes, a gateway in front of it may take fewer: use smaller values."
        )
        error.http_status = status
        raise error
    raise bad_status(status, body, what)


def bad_status(status: int, body: bytes | bytearray, what: str) -> BadReplyError:
    """Return the error of an HTTP status that a gateway may have answered with, too."""
    found = _TITLE.search(body[:4096])
    title = causes.cut(" ".join(found[2].decode("utf-8", "replace").split()), TITLE_MAX) if found else ""
    page = f" ({title})" if title else ""
    if status == 429:
        advice = "too many requests: use smaller batches, or try later"
    elif status >= 500:
        advice = "a gateway's page, or the service is down: try later"
    elif 300 <= status < 400:
        advice = "redirects are not followed: give the endpoint's final address"
    else:
        advice = "check the endpoint and its path prefix"
    error = BadReplyError(f"{what} was answered with HTTP {status}{page}: {advice}.", http_status=status)
    if status < 500:
        error.applied = False
        error.retryable = status == 429
    return error

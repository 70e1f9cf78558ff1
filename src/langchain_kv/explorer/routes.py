"""What the page asks for: each a call with the fields of a request, and what it answers. Knows no HTTP."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from langchain_kv.backends.base import Backend, Found, Kind, Record, Stored
from langchain_kv.engines.base import CollectionName
from langchain_kv.errors import InvalidValueError, StoreError, UnknownCollectionError, UnknownKeyspaceError, UsageError
from langchain_kv.explorer.scans import ScanGoneError, Scans
from langchain_kv.explorer.shapes import fingerprint, json_text, payload_of, shown
from langchain_kv.explorer.targets import Backends, Target
from langchain_kv.values.codecs import encode_json
from langchain_kv.values.lenient import exact_number, exact_numbers

__all__ = ["CHANGES", "Reply", "Routes"]

LIMIT_MAX: Final = 10_000
"""Keys that one part of a listing may be asked to have."""

CHANGES: Final = ("put", "delete")
"""The routes that change something."""

_logger = logging.getLogger("langchain_kv")


class Reply(msgspec.Struct):
    """An answer.

    Attributes:
        status: as HTTP's.
        body: JSON text, or a value to be downloaded.
        is_json: which of them.
    """

    status: int
    body: bytes
    is_json: bool = True


class _About(msgspec.Struct):
    pass


class _Keys(msgspec.Struct):
    keyspace: str
    collection: str
    prefix: str = ""
    limit: int = 500
    cursor: str | None = None
    number: int = 0


class _Value(msgspec.Struct):
    keyspace: str
    collection: str
    key: str


class _Change(_Value):
    version: str
    text: str = ""


class _Refusal(Exception):
    """What is answered in the place of what was asked for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Routes:
    """Answers what the page asks. Calls block, and may come from several threads at once.

    Args:
        target: what is looked at.
        edits: whether values may be changed and removed.
    """

    def __init__(self, target: Target, *, edits: bool) -> None:
        self._target = target
        self._edits = edits
        self._backends = Backends(target.open)
        self._scans = Scans(self._backends)
        self._routes: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
            "about": (_About, self._about),
            "collections": (_About, self._collections),
            "keys": (_Keys, self._keys),
            "value": (_Value, self._value),
            "download": (_Value, self._download),
            "put": (_Change, self._put),
            "delete": (_Change, self._delete),
        }

    def has(self, name: str) -> bool:
        """Whether there is a route of this name."""
        return name in self._routes

    def answer(self, name: str, body: bytes) -> Reply:
        """Return the answer of a route. Nothing is raised: what goes wrong is in the answer."""
        kind, route = self._routes[name]
        try:
            if name in CHANGES and not self._edits:
                raise _Refusal(
                    403, "READ_ONLY", "This server only reads: start it with --explorer-edits to change values."
                )
            asked = msgspec.json.decode(body or b"{}", type=kind)
            with exact_numbers():  # what is shown, compared and refused is what was written, not its nearest floats
                found = route(asked)
            return found if isinstance(found, Reply) else Reply(200, json_text(found))
        except Exception as error:
            status, code, message = _told(error)
            return Reply(status, json_text({"error": {"code": code, "message": message}}))

    def close(self) -> None:
        """Give up the scans and close the backends."""
        self._scans.close()
        self._backends.close()

    # -- reading --------------------------------------------------------------------------------------------------

    def _about(self, _: _About) -> Any:
        target = self._target
        return {"target": target.shown, "url": target.url, "keyspace": target.keyspace, "edits": self._edits}

    def _collections(self, _: _About) -> Any:
        names = self._target.collections()
        return {"collections": [{"keyspace": each.keyspace, "name": each.name} for each in names]}

    def _keys(self, asked: _Keys) -> Any:
        limit = max(1, min(asked.limit, LIMIT_MAX))
        if asked.cursor is None:
            part = self._scans.begin(_collection(asked), asked.prefix, limit)
        else:
            part = self._scans.go_on(asked.cursor, asked.number, limit)
        return part._asdict()

    def _value(self, asked: _Value) -> Any:
        with self._backends.using(_collection(asked)) as backend:
            return {"key": asked.key, **shown(_read(backend, asked.key))}

    def _download(self, asked: _Value) -> Reply:
        with self._backends.using(_collection(asked)) as backend:
            stored = _read(backend, asked.key)
        if not isinstance(stored, Found):
            raise _Refusal(422, "DAMAGED", f"The value cannot be read: {stored.reason}.")
        return Reply(200, payload_of(stored), is_json=False)

    # -- changing -------------------------------------------------------------------------------------------------

    def _put(self, asked: _Change) -> Any:
        """Replace a JSON value, in its kind and with its expiry, if it is still the one that was shown."""
        try:
            value = json.loads(asked.text, parse_float=_float)
        except (ValueError, RecursionError) as error:
            raise InvalidValueError(f"This is no JSON: {error}.") from None

        def changed(stored: Stored) -> Record:
            if not isinstance(stored, Found) or stored.kind is Kind.BYTES:
                raise _Refusal(400, "NOT_JSON", "Only JSON values can be edited here.")
            record = encode_json(asked.key, value, stored.expires_at_ms)
            is_blob = stored.kind is Kind.BODY_BLOB
            return Record(record.key, record.payload, stored.kind if is_blob else record.kind, record.expires_at_ms)

        self._change(asked, changed)
        return self._value(asked)

    def _delete(self, asked: _Change) -> Any:
        self._change(asked, lambda _: None)
        return {"deleted": True}

    def _change(self, asked: _Change, change: Callable[[Stored], Record | None]) -> None:
        def checked(stored: Stored | None) -> Record | None:
            if stored is None or fingerprint(stored) != asked.version:
                raise _Refusal(409, "CHANGED", "Somebody else has changed or removed this value: look at it again.")
            return change(stored)

        with self._backends.using(_collection(asked)) as backend:
            if backend.can_update:
                backend.update(asked.key, checked)
                return
            # Where a target cannot do it in one step, a change that falls between these two is lost.
            record = checked(backend.get_many([asked.key])[0])
            if record is None:
                backend.delete_many([asked.key])
            else:
                backend.put_many([record])


def _float(text: str) -> float:
    number = exact_number(text)
    if isinstance(number, float):
        return number
    raise _Refusal(
        400,
        "NOT_EXACT",
        f"The number {text[:60]} has more digits than are kept here, or is too large or too small: it would become"
        f" {float(text)!r}. Round it yourself, make it a text, or change the value with a client that keeps it.",
    )


def _collection(asked: _Keys | _Value) -> CollectionName:
    return CollectionName(asked.keyspace, asked.collection)


def _read(backend: Backend, key: str) -> Stored:
    [stored] = backend.get_many([key])
    if stored is None:
        raise _Refusal(404, "NO_VALUE", "There is no value of this key: it was removed, or has expired.")
    return stored


def _told(error: Exception) -> tuple[int, str, str]:
    """Return the status, the code and the words for an error. What nobody foresaw is logged: its text stays here."""
    if isinstance(error, _Refusal):
        return error.status, error.code, str(error)
    if isinstance(error, ScanGoneError):
        return 410, "SCAN_GONE", "The listing was given up meanwhile: begin anew."
    if isinstance(error, msgspec.DecodeError):
        return 400, "BAD_REQUEST", f"The request cannot be read: {error}."
    if isinstance(error, StoreError):
        is_unknown = isinstance(error, UnknownCollectionError | UnknownKeyspaceError)
        status = 404 if is_unknown else 400 if isinstance(error, UsageError) else 502
        return status, type(error).__name__, str(error).encode("utf-8", "replace").decode()
    _logger.error("The explorer met an error that nobody foresaw.", exc_info=error)
    return 500, "UNEXPECTED", "The server failed on this; the reason is in its log. Please report it."

"""A stored value as it is shown: exact to a program, as what it is to a person."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any, Final

from langchain_kv.backends.base import Found, Stored
from langchain_kv.cli.given import Form
from langchain_kv.cli.output import Output, json_line, json_text
from langchain_kv.cli.table import printable
from langchain_kv.embeddings.vectors import count_of, first_numbers
from langchain_kv.errors import UsageError
from langchain_kv.limits import LAST_MOMENT_MS
from langchain_kv.values.codecs import bytes_from_text
from langchain_kv.values.keys import shown

__all__ = ["COLUMNS", "exact", "fields_of", "moment_text", "row_of", "shown_in_line", "shown_to_people", "value_in"]

_BYTES_SHOWN: Final = 20
_NUMBERS_SHOWN: Final = 4
_FIRST_MOMENT_MS: Final = -62_135_596_800_000  # the beginning of the year 1
_DOCUMENT: Final = {"page_content", "metadata"}


def value_in(form: Form | None, found: Found) -> Any:
    """Return the value in the form that was asked for.

    Args:
        form: BYTES also takes bytes that are kept as base64 text, as over HTTP; None: as it is stored.
        found: what is stored.

    Raises:
        UndecodableError: these are no bytes.
    """
    if form is Form.BYTES and not isinstance(found.value, bytes):
        return bytes_from_text(found.value)
    return found.value


def exact(form: Form | None, key: str, value: Any) -> bytes:
    """Return what is printed of one value for a program: bytes and text as they are, else JSON and a line end.

    Raises:
        UsageError: text was asked for, and it is none.
    """
    if form is Form.TEXT:
        if not isinstance(value, str):
            what = "bytes" if isinstance(value, bytes) else "JSON"
            raise UsageError(f"The value of key {shown(key)} is not text but {what}: leave out --text.")
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else json_line(value)


COLUMNS: Final = ("key", "expires_at", "value")
"""Of a table of values."""


def row_of(key: str, value: Any, stored: Stored | None, output: Output) -> dict[str, Any]:
    """Return a value as a row: for a table where that is what is printed, else its JSON line's fields."""
    expires_at_ms = stored.expires_at_ms if isinstance(stored, Found) else None
    fields = fields_of(key, value, expires_at_ms)
    if output.is_for_people:
        fields["value"] = shown_in_line(value)
    return fields


def fields_of(key: str, value: Any, expires_at_ms: int | None = None) -> dict[str, Any]:
    """Return the fields of a value's JSON line: ``value``, or ``base64`` where it is bytes, and when it expires."""
    fields: dict[str, Any] = {"key": key}
    if isinstance(value, bytes):
        fields["base64"] = base64.b64encode(value).decode()
    else:
        fields["value"] = value
    if expires_at_ms is not None:
        fields["expires_at"] = moment_text(expires_at_ms)
    return fields


def moment_text(moment_ms: int) -> str:
    """Return a moment in ISO 8601's form, in UTC; the milliseconds, where another program stored what is no date."""
    if not _FIRST_MOMENT_MS <= moment_ms <= LAST_MOMENT_MS:
        return str(moment_ms)
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown_to_people(form: Form | None, value: Any) -> str:
    """Return a value as lines for a terminal, which nothing in it can disturb."""
    if form is Form.TEXT:
        return printable(value, keep="\n\t")
    if isinstance(value, bytes):
        return bytes_line(value)
    if _is_document(value):
        return _document_lines(value)
    return printable(json_text(value, indent=2), keep="\n")


def shown_in_line(value: Any, most: int = 200) -> str:
    """Return the beginning of a value as a cell of a table."""
    if isinstance(value, bytes):
        return bytes_line(value)
    if _is_document(value):
        return f"document: {value['page_content'][:most]}"
    return json_text(value)[:most]


def bytes_line(value: bytes) -> str:
    """Return what is shown of bytes: of a vector its length and first numbers, else the first bytes as hex digits."""
    count = count_of(value)
    if count:
        kind, numbers = first_numbers(value, _NUMBERS_SHOWN)
        first = ", ".join(f"{one:.6g}" for one in numbers)
        return f"vector of {count:,} {kind}: [{first}{', ...' if count > _NUMBERS_SHOWN else ''}]"
    more = " ..." if len(value) > _BYTES_SHOWN else ""
    return f"{len(value):,} bytes: {value[:_BYTES_SHOWN].hex(' ')}{more}"


def _is_document(value: Any) -> bool:
    """Return whether a value is what a DocumentStore keeps."""
    return (
        isinstance(value, dict)
        and value.keys() >= _DOCUMENT
        and isinstance(value["page_content"], str)
        and isinstance(value["metadata"], dict)
    )


def _document_lines(value: dict[str, Any]) -> str:
    """Return the id, the metadata and what else there is, a line each, then the text as it reads."""
    rest = {name: item for name, item in value.items() if name not in _DOCUMENT and item is not None}
    facts = [
        f"{name}: {item if isinstance(item, str) else json_text(item, ensure_ascii=True)}"
        for name, item in rest.items()
    ]
    facts += [f"metadata.{name}: {json_text(item)}" for name, item in value["metadata"].items()]
    lines = [printable(fact) for fact in facts]
    return "\n".join([*lines, "", printable(value["page_content"], keep="\n\t")])

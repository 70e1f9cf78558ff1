"""What an engine keeps of a value of bytes, where it keeps bytes as they are: base64 costs time, and a third more room.

The body of a row is one of two things, told apart by its first byte:

- the JSON text of a document, which begins with ``{``;
- a value of bytes. It is itself the body, so that nothing copies it; only a value that is empty, or begins with ``{``,
  with a zero byte or with ``ESCAPE``, has ``ESCAPE`` before it.

So a body that is empty or begins with a zero byte, as a page of zeros would, is damage. Whoever looks for documents
(``engines/documents.py``) finds what langchain-astradb would have stored.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ESCAPE", "bytes_document", "kept_body", "kept_bytes"]


ESCAPE: Final = b"\1"
_ESCAPED: Final = (b"{", b"\0", ESCAPE, b"")


def kept_body(value: bytes) -> bytes:
    """Return the body that keeps a value."""
    return ESCAPE + value if value[:1] in _ESCAPED else value


def kept_bytes(body: bytes) -> bytes | None:
    """Return the value of bytes that a body keeps, None where it keeps none."""
    first = body[:1]
    if first == ESCAPE:
        return body[1:] if body[1:2] in _ESCAPED else None
    return None if first in _ESCAPED else body


def bytes_document(key: str, value: bytes | bytearray | memoryview) -> bytes:
    """Return the compact JSON text of the document that has ``value`` as base64 text."""
    import msgspec
    import orjson

    # msgspec writes bytes as base64 text, in a third of the time that the standard library takes.
    return b'{"_id":%b,"value":%b}' % (orjson.dumps(key), msgspec.json.encode(value))

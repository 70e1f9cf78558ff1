"""Reads what Upstash's REST interface answers: RESP2, or JSON with strings in base64. No input or output."""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import suppress
from typing import Any, Final

import orjson

from langchain_kv.backends.dataapi.causes import cut
from langchain_kv.backends.dataapi.client import Reply
from langchain_kv.backends.dataapi.service_errors import bad_status
from langchain_kv.errors import AuthError, BadReplyError, LimitError, StoreError

__all__ = ["parse_replies", "speaks_json"]

_REFUSED: Final = re.compile(r"WRONGPASS|NOAUTH|NOPERM|Unauthorized", re.IGNORECASE)
_TOO_LARGE: Final = re.compile(r"size exceeded", re.IGNORECASE)
_CUT: Final = (ValueError, IndexError, TypeError, KeyError, RecursionError)


def parse_replies(reply: Reply, count: int, what: str) -> list[Any]:
    """Return the reply to each command of a request; an error is one.

    Args:
        reply: the answer.
        count: how many commands there were.
        what: the words for what was tried.

    Raises:
        AuthError: the token was refused.
        BadReplyError: the answer is not one of this interface.
        StoreError: the request was refused.
    """
    parsed: Any = None
    with suppress(*_CUT):
        parsed = _parsed(reply.body)
        replies = [parsed] if count == 1 else parsed
        if reply.status == 200 and isinstance(replies, list) and len(replies) == count:
            return replies
    if reply.status == 401:
        raise error_of("unauthorized")
    if isinstance(parsed, StoreError) and reply.status < 500 and reply.status != 429:
        raise parsed
    if reply.status in (413, 414):
        too = "too large" if reply.status == 413 else "with too long a key for a value that is no UTF-8"
        raise LimitError(f"{what} was refused (HTTP {reply.status}), it is {too}: use a smaller one.")
    if reply.status != 200:
        raise bad_status(reply.status, reply.body, what)
    raise BadReplyError(
        f"The answer to {what} is not one of Upstash's REST interface, or is cut: check the endpoint.",
        http_status=reply.status,
    )


def speaks_json(reply: Reply, *, is_repeatable: bool) -> bool:
    """Tell whether a server answered JSON where RESP2 was asked for, so that the request is to be sent again.

    Args:
        reply: the answer.
        is_repeatable: whether what was carried out may be sent again; such answers of others hold numbers, no strings.
    """
    if not reply.body.startswith((b"{", b"[")):
        return False
    return is_repeatable if reply.status == 200 else reply.status == 400 and b"resp2" in reply.body.lower()


def error_of(text: str) -> StoreError:
    """Return the error of ours for the service's words, which never have a value."""
    told = cut(text.partition(", with args")[0], 300)  # what it was sent
    if _REFUSED.match(told):
        return AuthError(f"Upstash refused the token ({told}): check token=, or UPSTASH_REDIS_REST_TOKEN.")
    if _TOO_LARGE.search(told):
        return LimitError(f"It is too large ({told}): use smaller values, or another plan of Upstash.")
    return StoreError(f"Upstash refused the command: {told}")


def _parsed(body: bytes | bytearray) -> Any:
    if not body.startswith((b"{", b"[")):
        value, end = _resp2(bytes(body), 0)
        if end != len(body):
            raise ValueError("more than one answer")
        return value
    answer = orjson.loads(body)
    return [_result(one) for one in answer] if isinstance(answer, list) else _result(answer)


def _resp2(body: bytes, start: int) -> tuple[Any, int]:
    """Return the value that begins at ``start``, and where it ends."""
    line_end = body.index(b"\r\n", start)
    kind, line, end = body[start : start + 1], body[start + 1 : line_end], line_end + 2
    if kind == b"+":
        return line, end
    if kind == b"-":
        return error_of(line.decode("utf-8", "replace")), end
    number = int(line)
    if kind == b":" or number < 0:
        return (number if kind == b":" else None), end
    if kind == b"$":
        if body[end + number : end + number + 2] != b"\r\n":
            raise ValueError("cut")
        return body[end : end + number], end + number + 2
    if kind != b"*":
        raise ValueError("no RESP2")
    values = []
    for _ in range(number):
        value, end = _resp2(body, end)
        values.append(value)
    return values, end


def _result(answer: Any) -> Any:
    return error_of(str(answer["error"])) if "error" in answer else _decoded(answer["result"])


def _decoded(value: Any) -> Any:
    if isinstance(value, str):
        return b"OK" if value == "OK" else b64decode(value, validate=True)
    return [_decoded(one) for one in value] if isinstance(value, list) else value

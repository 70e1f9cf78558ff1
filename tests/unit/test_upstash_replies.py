"""What answers of Upstash's REST interface say, and answers that are none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from langchain_kv.backends.dataapi.client import Reply
from langchain_kv.backends.upstash_replies import parse_replies
from langchain_kv.errors import AuthError, BadReplyError, LimitError, StoreError

PIPELINE = b"*4\r\n$5\r\n\xff\r\n\x00a\r\n*3\r\n$-1\r\n:12\r\n$0\r\n\r\n+OK\r\n*0\r\n"
SAID: list[Any] = [b"\xff\r\n\x00a", [None, 12, b""], b"OK", []]


def parsed(body: bytes, count: int = 1, status: int = 200) -> list[Any]:
    return parse_replies(Reply(status, body), count, "GET on upstash")


def in_base64(value: Any) -> Any:
    if isinstance(value, bytes):
        return "OK" if value == b"OK" else base64.b64encode(value).decode()
    return [in_base64(each) for each in value] if isinstance(value, list) else value


def test_both_forms_say_the_same() -> None:
    assert parsed(PIPELINE, 4) == SAID
    assert parsed(json.dumps([{"result": in_base64(value)} for value in SAID]).encode(), 4) == SAID
    assert parsed(b"$2\r\nab\r\n") == parsed(b'{"result":"YWI="}') == [b"ab"]
    assert parsed(bytearray(b":7\r\n")) == [7]


@pytest.mark.parametrize("end", range(len(PIPELINE)))
def test_an_answer_that_is_cut_anywhere_is_told(end: int) -> None:
    with pytest.raises(BadReplyError, match="cut") as caught:
        parsed(PIPELINE[:end], 4)
    assert caught.value.applied is None
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (b"<html>", 1),
        (b"$1\r\nab\r\n", 1),
        (b"$x\r\n", 1),
        (b"+OK\r\n+OK\r\n", 1),
        (b"+OK\r\n", 2),
        (b"*1\r\n+OK\r\n", 2),
        (b"%1\r\n+a\r\n+b\r\n", 1),
        (b"*1\r\n" * 100_000, 1),
        (b'{"result":"not base64"}', 1),
        (b'{"other":1}', 1),
        (b'{"result":1', 1),
        (b'[{"result":1}]', 2),
        (b"[1,2]", 2),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_answer_of_the_interface_is_told(body: bytes, count: int) -> None:
    with pytest.raises(BadReplyError, match="check the endpoint"):
        parsed(body, count)


def test_an_error_of_one_command_leaves_the_others() -> None:
    for body in (b"*2\r\n-ERR no\r\n+OK\r\n", b'[{"error":"ERR no"},{"result":"OK"}]'):
        error, reply = parsed(body, 2)
        assert (type(error), str(error), error.applied) == (StoreError, "Upstash refused the command: ERR no", False)
        assert reply == b"OK"


@pytest.mark.parametrize(
    ("status", "body", "kind", "applied"),
    [
        (401, b'{"error":"Unauthorized"}', AuthError, False),
        (401, b"", AuthError, False),
        (400, b'{"error":"NOPERM this user has no permissions"}', AuthError, False),
        (400, b"-ERR max request size exceeded. Limit: 1\r\n", LimitError, False),
        (400, b'{"error":"ERR syntax error"}', StoreError, False),
        (413, b"<html>", LimitError, False),
        (429, b'{"error":"ERR too many"}', BadReplyError, False),
        (404, b"", BadReplyError, False),
        (500, b'{"error":"ERR internal"}', BadReplyError, None),
        (504, b"<html>", BadReplyError, None),
    ],
)
def test_a_status_is_the_error_of_the_whole_request(status: int, body: bytes, kind: type[Any], applied: Any) -> None:
    with pytest.raises(kind) as caught:
        parsed(body, 3, status)
    assert type(caught.value) is kind
    assert caught.value.applied is applied
    assert caught.value.retryable is (status in (429, 500, 504))


def test_the_words_of_the_service_are_told_without_what_it_was_sent() -> None:
    (error,) = parsed(b"-ERR unknown command 'X', with args beginning with: 'secret'\r\n")
    assert "unknown command" in str(error)
    assert "secret" not in str(error)

"""Commands of the Data API as bytes: what is sent, and how answers are read. No input or output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from langchain_kv import limits
from langchain_kv.backends.base import Damaged, Found
from langchain_kv.backends.dataapi import commands, replies
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    DataAPIError,
    LimitError,
    StoreError,
    UnknownCollectionError,
    UnknownKeyspaceError,
)

WHAT = "find on k.c"


def _page(documents: str, state: str = "null") -> bytes:
    return f'{{"data":{{"documents":[{documents}],"nextPageState":{state}}}}}'.encode()


def _errors(*entries: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"errors": list(entries), **more}).encode()


def _entry(code: str, ids: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    entry = {"errorCode": code, "family": "REQUEST", "scope": "DOCUMENT", "title": "T", "message": "M", **more}
    return entry if ids is None else {**entry, "documentIds": ids}


# -- requests ---------------------------------------------------------------------------------------------------


def test_document_travels_as_it_is() -> None:
    document = b'{"_id":"k","value":1.0e2}'
    for command in (commands.upsert(("k", document)), commands.insert_many([("k", document)])):
        assert document in command.body
        json.loads(command.body)


@pytest.mark.parametrize("size", [10, commands.LARGE_BYTES])
def test_a_large_request_is_the_same_in_parts(size: int) -> None:
    records = [(key, b'{"_id":"%b","value":"%b"}' % (key.encode(), b"x" * size)) for key in "abc"]
    for command in (commands.upsert(records[0]), commands.insert_many(records)):
        assert bool(command.parts) == (size == commands.LARGE_BYTES)
        sent = json.loads(command.body + b"".join(command.parts))
        (fields,) = sent.values()
        expected = [json.loads(document) for _, document in records]
        assert fields.get("documents", expected) == expected
        assert fields.get("replacement", expected[0]) == expected[0]


def test_upsert_asks_for_no_value_back() -> None:
    sent = json.loads(commands.upsert(('k"', b'{"_id":"k\\"","value":1}')).body)["findOneAndReplace"]
    assert sent == {
        "filter": {"_id": 'k"'},
        "replacement": {"_id": 'k"', "value": 1},
        "projection": {"value": False},
        "options": {"upsert": True},
    }


def test_page_request_names_state_and_projection() -> None:
    assert json.loads(commands.find_page(None, values=True).body) == {"find": {}}
    assert json.loads(commands.find_page("s", values=False).body) == {
        "find": {"projection": {"value": False, "encoding": False, "body_blob": False}, "options": {"pageState": "s"}}
    }


def test_delete_without_keys_is_never_built() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        commands.delete_many([])


def test_created_collection_indexes_the_id_only() -> None:
    sent = json.loads(commands.create_collection("c").body)
    assert sent == {"createCollection": {"name": "c", "options": {"indexing": {"allow": ["_id"]}}}}


def test_runs_hold_at_most_100_documents_in_order() -> None:
    records = [(str(n), b"{}") for n in range(205)]
    runs = list(commands.split_by_size(records))
    assert [len(run) for run in runs] == [100, 100, 5]
    assert [record for run in runs for record in run] == records


def test_runs_stay_within_the_bytes_of_a_body() -> None:
    third = b"x" * (limits.REQUEST_BODY_TARGET_BYTES // 3)
    runs = list(commands.split_by_size([(str(n), third) for n in range(7)]))
    assert [len(run) for run in runs] == [2, 2, 2, 1] or [len(run) for run in runs] == [3, 3, 1]
    assert all(sum(len(text) for _, text in run) <= limits.REQUEST_BODY_TARGET_BYTES for run in runs)


def test_document_larger_than_a_run_goes_alone() -> None:
    huge = b"x" * (limits.REQUEST_BODY_TARGET_BYTES + 1)
    runs = list(commands.split_by_size([("a", b"{}"), ("b", huge), ("c", b"{}")]))
    assert [[key for key, _ in run] for run in runs] == [["a"], ["b"], ["c"]]


def test_no_records_make_no_run() -> None:
    assert list(commands.split_by_size([])) == []


# -- pages ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["small", "large"])
def parse_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., replies.Page]:
    """Reads a page, and its documents, in one of the two ways."""
    if request.param == "large":
        monkeypatch.setattr(replies, "LARGE_BYTES", 1)
        monkeypatch.setattr(replies, "SLICE_BYTES", 1)

    def read(status: int, body: bytes, what: str) -> replies.Page:
        page = replies.parse_page(status, body, what)
        return replies.Page([item for some in replies.documents(page) for item in some], page.state)

    return read


@pytest.mark.parametrize("body", [b'{"_id":"a","value":"\xff"}', b'{"value":"\xff","_id":"a"}'])
def test_document_that_is_not_utf8_is_damaged_alone(parse_page: Callable[..., replies.Page], body: bytes) -> None:
    page = parse_page(200, b'{"data":{"documents":[%b,{"_id":"b"}],"nextPageState":null}}' % body, WHAT)
    found = dict(page.items)
    assert isinstance(found["a"], Damaged)
    assert found["b"] == Found(None)


def test_document_whose_id_cannot_be_read_is_a_bad_reply(parse_page: Callable[..., replies.Page]) -> None:
    with pytest.raises(BadReplyError):
        parse_page(200, b'{"data":{"documents":[{"_id":"\xff"}],"nextPageState":null}}', WHAT)


def test_integers_are_exact(parse_page: Callable[..., replies.Page]) -> None:
    digits = "1234567890" * 4
    page = parse_page(200, _page(f'{{"_id":"k","value":{digits}}}'), WHAT)
    assert page.items == [("k", Found(int(digits)))]


@pytest.mark.parametrize("odd", ["1E+400", '"\\ud800"', '"\\udc00 x"', "1234567890" * 4])
def test_odd_value_does_not_lose_its_page(parse_page: Callable[..., replies.Page], odd: str) -> None:
    body = _page(f'{{"_id":"a","value":1}},{{"_id":"odd","value":{odd}}},{{"_id":"z","value":2}}', '"next"')
    page = parse_page(200, body, WHAT)
    found = dict(page.items)
    assert page.state == "next"
    assert list(found) == ["a", "odd", "z"]
    assert (found["a"], found["z"]) == (Found(1), Found(2))
    assert isinstance(found["odd"], Damaged) or found["odd"].value is not None


def test_number_beyond_a_float_reads_as_infinity_beside_others(parse_page: Callable[..., replies.Page]) -> None:
    page = parse_page(200, _page('{"_id":"a","value":1E+400},{"_id":"b","value":3}'), WHAT)
    assert dict(page.items) == {"a": Found(float("inf")), "b": Found(3)}


@pytest.mark.parametrize("cut", [1, 10, 25, -1, -2, -20])
def test_cut_page_is_a_bad_reply(parse_page: Callable[..., replies.Page], cut: int) -> None:
    body = _page('{"_id":"a","value":1E+400},{"_id":"b","value":"x"}')
    for whole in (body, body.replace(b"1E+400", b"1")):
        with pytest.raises(BadReplyError) as caught:
            parse_page(200, whole[:cut], WHAT)
        assert caught.value.retryable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"data":{"documents":null}}',
        b'{"data":{"documents":[1]}}',
        b'{"data":{"documents":[],"nextPageState":5}}',
        b'{"errors":"x"}',
        b'{"errors":[1]}',
        b"\xff",
        b"<html>",
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_of_the_data_api_is_a_bad_reply(body: bytes) -> None:
    readers: list[Any] = [
        replies.parse_page,
        replies.parse_replaced,
        replies.parse_deleted,
        replies.parse_status,
        replies.parse_collections,
    ]
    for read in readers:
        with pytest.raises(BadReplyError):
            read(200, body, WHAT)


def test_error_in_the_page_is_raised(parse_page: Callable[..., replies.Page]) -> None:
    body = _errors(_entry("UNKNOWN_COLLECTION_OR_TABLE", scope="SCHEMA"))
    with pytest.raises(UnknownCollectionError, match=r"find on k\.c.*SetupMode"):
        parse_page(200, body, WHAT)


# -- other answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "document", "existed"),
    [
        ({"matchedCount": 0, "modifiedCount": 0, "upsertedId": "k"}, None, False),
        ({"matchedCount": 1, "modifiedCount": 1}, {"_id": "k"}, True),
        ({"matchedCount": 0, "modifiedCount": 1}, None, True),
        ({"matchedCount": 1, "modifiedCount": 0}, {"_id": "k"}, True),
    ],
)
def test_upsert_tells_whether_the_key_existed(status: dict[str, Any], document: Any, existed: bool) -> None:
    body = json.dumps({"data": {"document": document}, "status": status}).encode()
    assert replies.parse_replaced(200, body, WHAT) is existed


@pytest.mark.parametrize("matched", [0, 1])
def test_upsert_overtaken_by_a_delete_is_to_be_repeated(matched: int) -> None:
    status = {"matchedCount": matched, "modifiedCount": 0}
    with pytest.raises(DataAPIError) as caught:
        replies.parse_replaced(200, json.dumps({"data": {"document": None}, "status": status}).encode(), WHAT)
    assert caught.value.retryable
    assert caught.value.applied is None


def test_insert_sorts_its_errors_by_key() -> None:
    body = _errors(
        _entry("DOCUMENT_ALREADY_EXISTS", ["b"]),
        _entry("TIMEOUT_WRITING_DATA", ["c"], family="SERVER", scope="DATABASE"),
        _entry("SHRED_DOC_LIMIT_VIOLATION", ["d"]),
        status={"insertedIds": ["a"]},
    )
    result = replies.parse_inserted(200, body, WHAT, ["a", "b", "c", "d"])
    assert (result.existing, result.again, list(result.failed)) == (["b"], ["c"], ["d"])
    assert isinstance(result.failed["d"], LimitError)


def test_insert_repeats_keys_that_the_answer_does_not_mention() -> None:
    result = replies.parse_inserted(200, b'{"status":{"insertedIds":["a"]}}', WHAT, ["a", "b"])
    assert result.again == ["b"]


def test_insert_gives_an_unnamed_error_to_the_keys_left() -> None:
    body = _errors(_entry("SHRED_BAD_DOCID_TYPE"), status={"insertedIds": ["a"]})
    result = replies.parse_inserted(200, body, WHAT, ["a", "b"])
    assert list(result.failed) == ["b"]


def test_insert_raises_an_error_of_the_whole_command() -> None:
    with pytest.raises(UnknownKeyspaceError):
        replies.parse_inserted(200, _errors(_entry("UNKNOWN_KEYSPACE", scope="SCHEMA")), WHAT, ["a"])


def test_insert_survives_odd_ids() -> None:
    body = _errors(_entry("DOCUMENT_ALREADY_EXISTS", [5, {"$uuid": "x"}, "b"]), status={"insertedIds": [7, "a"]})
    assert replies.parse_inserted(200, body, WHAT, ["a", "b"]).existing == ["b"]


def test_delete_tells_of_more() -> None:
    assert replies.parse_deleted(200, b'{"status":{"deletedCount":20,"moreData":true}}', WHAT)
    assert not replies.parse_deleted(200, b'{"status":{"deletedCount":3}}', WHAT)


def test_collections_are_read_with_their_settings() -> None:
    body = b'{"status":{"collections":[{"name":"c","options":{"indexing":{"allow":["_id"]}}},{"name":"d"}]}}'
    assert replies.parse_collections(200, body, WHAT) == {"c": {"indexing": {"allow": ["_id"]}}, "d": {}}


# -- HTTP statuses and messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retryable", "applied"),
    [
        (301, False, False),
        (404, False, False),
        (403, False, False),
        (429, True, False),
        (500, True, None),
        (503, True, None),
    ],
)
def test_status_decides_what_may_be_repeated(status: int, retryable: bool, applied: bool | None) -> None:
    with pytest.raises(BadReplyError) as caught:
        replies.parse_status(status, b"", WHAT)
    assert (caught.value.http_status, caught.value.retryable, caught.value.applied) == (status, retryable, applied)


def test_gateways_page_is_told_by_its_title_only() -> None:
    page = b"<html><head><title>502 Bad\n Gateway</title></head><body>" + b"secret " * 200 + b"</body></html>"
    with pytest.raises(BadReplyError, match=r"HTTP 502 \(502 Bad Gateway\)") as caught:
        replies.parse_page(502, page, WHAT)
    assert "secret" not in str(caught.value)


def test_title_is_cut() -> None:
    with pytest.raises(BadReplyError) as caught:
        replies.parse_page(502, b"<title>" + b"y" * 390 + b"</title>", WHAT)
    assert str(caught.value).count("y") < 215


def test_413_is_a_limit() -> None:
    with pytest.raises(LimitError, match="too large") as caught:
        replies.parse_page(413, b"", WHAT)
    assert (caught.value.http_status, caught.value.applied, caught.value.retryable) == (413, False, False)


@pytest.mark.parametrize("body", [b"", _errors(_entry("UNAUTHENTICATED_REQUEST", scope="SECURITY"))])
def test_401_is_about_the_token(body: bytes) -> None:
    with pytest.raises(AuthError, match="token") as caught:
        replies.parse_page(401, body, WHAT)
    assert caught.value.http_status == 401


def test_service_text_that_may_quote_values_is_left_out() -> None:
    for code in ("REQUEST_NOT_JSON", "COMMAND_FIELD_VALUE_INVALID", "SHRED_BAD_EJSON_VALUE", "UNEXPECTED_SERVER_ERROR"):
        with pytest.raises(StoreError) as caught:
            replies.parse_status(200, _errors(_entry(code, scope="", message="the-value")), WHAT)
        assert "the-value" not in str(caught.value)
        assert code in str(caught.value)


def test_service_text_about_limits_is_kept() -> None:
    body = _errors(_entry("SHRED_DOC_LIMIT_VIOLATION", message="size 5 exceeds\n  4"))
    with pytest.raises(LimitError, match="size 5 exceeds 4"):
        replies.parse_status(200, body, WHAT)

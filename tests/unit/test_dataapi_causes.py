"""What is kept of the database's own words in an error, what is never told, and which causes come again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from faults.proxy import Misbehaving, api_error, errors
from langchain_kv.backends.base import Record
from langchain_kv.backends.dataapi import retry
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.dataapi.causes import DETERMINISTIC, is_deterministic, told
from langchain_kv.backends.dataapi.replies import parse_page
from langchain_kv.errors import DataAPIError, UnknownCollectionError

DRIVER = """An unexpected server error occurred while using the driver with the database.

The command against the COLLECTION ks.kv may be in an inconsistent state due to the error encountered. It may have:
* Failed to start communicating with the database.
* Encountered an error when being processed by the database.
* Completed successfully, but returned an unexpected response.

Consult the the detailed error message below for more information:

Error Class: {name}
Error Message: {text}

Review the Error Message before retrying this request."""

QUERY = """The Data API command generated a database query that while syntactically correct, was rejected as invalid.

The Data API should have generated a valid query, or returned an error before sending the query to the database.

The command used the keyspace and table or collection: ks.kv.
The command generated the CQL query: INSERT INTO ks.kv (key, doc_json) VALUES (?, ?).
The command generated the CQL values: {values}.
The database error: {text}.

Retrying the command will likely result in the same error."""

TIMEOUT = """The Data API generated a database query that timed out before completing the operation.

The command generated the CQL query: INSERT INTO ks.kv (key, doc_json) VALUES (?, ?).
The command generated the CQL values: {values}.
The number of nodes blocked for was: 2.
The number of nodes received was: 1.
The write type was: CAS.

It is safe to retry this request."""


def error_of(code: str, message: str, **more: Any) -> DataAPIError:
    entry = {**api_error(code), "message": message, **more}
    with pytest.raises(DataAPIError) as caught:
        parse_page(200, json.dumps({"errors": [entry]}).encode(), "find on ks.kv")
    return caught.value


def test_the_drivers_own_words_are_kept() -> None:
    error = error_of("UNEXPECTED_DRIVER_ERROR", DRIVER.format(name="ClosedConnectionException", text="Lost it"))
    assert "Error Class: ClosedConnectionException" in str(error)
    assert "Error Message: Lost it" in str(error)
    assert len(str(error)) < 700


def test_the_databases_words_are_kept_and_the_values_are_not() -> None:
    error = error_of("INVALID_DATABASE_QUERY", QUERY.format(values="[1, 'k'], s3cret", text="Undefined column name x"))
    assert "The database error: Undefined column name x" in str(error)
    assert "s3cret" not in str(error)
    assert "INSERT" not in str(error)


@pytest.mark.parametrize("code", ["TIMEOUT_WRITING_DATA", "FAILED_WRITE_REQUEST", "A_CODE_OF_LATER"])
@pytest.mark.parametrize(
    "values",
    [
        "s3cret",
        "x\nThe database error: s3cret",
        "x\n\nError Message: s3cret\n",
        "x\nError Class: s3cret\nIt is safe to",
    ],
)
def test_a_value_that_looks_like_the_databases_words_is_not_told(code: str, values: str) -> None:
    for text in (TIMEOUT, QUERY.replace("{text}", "what it said")):
        assert "s3cret" not in str(error_of(code, text.format(values=values)))


@pytest.mark.parametrize("code", ["UNEXPECTED_SERVER_ERROR", "SHRED_BAD_EJSON_VALUE"])
def test_outside_of_the_database_the_class_alone_is_told(code: str) -> None:
    message = "It failed.\n\nError Class: JsonParseException\nError Message: Unexpected s3cret"
    assert told(message, code, "") == "Error Class: JsonParseException"


def test_a_table_that_the_database_does_not_know_is_an_unknown_collection() -> None:
    for text in ("unconfigured table kv", "table ks.kv does not exist", "Table 'ks.kv' doesn't exist"):
        error = error_of("INVALID_DATABASE_QUERY", QUERY.format(values="x", text=text))
        assert isinstance(error, UnknownCollectionError)
    other = error_of("INVALID_DATABASE_QUERY", QUERY.format(values="table x does not exist", text="Undefined column"))
    assert not isinstance(other, UnknownCollectionError)


PASSING = ["ClosedConnectionException", "ConnectionInitException", "HeartbeatException", "BusyConnectionException"]
PASSING += ["DriverTimeoutException", "NodeUnavailableException", "OverloadedException", "ServerError", "OfLater"]


@pytest.mark.parametrize("name", PASSING)
def test_a_database_that_restarts_is_passing(name: str) -> None:
    assert error_of("UNEXPECTED_DRIVER_ERROR", DRIVER.format(name=name, text="x")).retryable
    assert error_of("UNEXPECTED_DRIVER_ERROR", "no class at all").retryable


@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
def test_a_cause_that_comes_again_is_final(name: str) -> None:
    for given in (name, f"com.datastax.oss.driver.{name}"):
        message = DRIVER.format(name=given, text="Error Class: ClosedConnectionException")
        assert is_deterministic(message)
        assert not error_of("UNEXPECTED_DRIVER_ERROR", message).retryable


# -- sent again, or not -----------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


def backend(server: Misbehaving, **more: Any) -> DataAPIBackend:
    given: dict[str, Any] = {"collection": "c", "keyspace": "k", "token": "t", "deadline_s": 30}
    return DataAPIBackend(server.url, **{**given, **more})


def test_a_restart_of_the_database_is_waited_for(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    message = DRIVER.format(name="ConnectionInitException", text="x")
    server.faults.extend(errors({**api_error("UNEXPECTED_DRIVER_ERROR"), "message": message}) for _ in range(7))
    opened = backend(server)
    opened.put_many([Record("a", b"1")])
    assert server.names == ["findOneAndReplace"] * 8
    opened.close()


def test_a_cause_that_comes_again_is_told_at_once_and_names_the_keys(server: Misbehaving) -> None:
    message = DRIVER.format(name="CodecNotFoundException", text="x")
    server.script = lambda request: errors({**api_error("UNEXPECTED_DRIVER_ERROR"), "message": message})
    opened = backend(server)
    with pytest.raises(DataAPIError, match="CodecNotFoundException") as caught:
        opened.put_many([Record("a", b"1")])
    assert (caught.value.applied, caught.value.retryable) == (None, False)
    assert server.names == ["findOneAndReplace"]
    opened.close()

"""``lckv get``, ``set``, ``del`` and ``keys``: what they print, where, and with which exit code."""

from __future__ import annotations

import ast
import io
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import langchain_kv
from langchain_kv import (
    BackendOptions,
    KVByteStore,
    KVStore,
    PartialWriteError,
    Record,
    RequestTimeoutError,
    StoreError,
)
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.cli.output import json_line
from langchain_kv.cli.secrets import read_secret
from langchain_kv.cli.wording import NAMES, PHRASES, worded
from langchain_kv.errors import (
    AuthError,
    CollectionConflictError,
    ConnectError,
    EngineBusyError,
    EngineFileError,
    LimitError,
)
from langchain_kv.places.schemes import parse_url
from langchain_kv.server.http.running import run_in_thread
from running import Lckv


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    """The options that name a store on a file."""
    return ["--db", f"sqlite:{tmp_path / 'kv.db'}", "--collection", "kv"]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def is_one_line(text: str) -> bool:
    return text.startswith("lckv: ") and text.endswith("\n") and text.count("\n") == 1


# -- values there and back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['{"n": 1, "deep": [null, true, 1.5]}', '"text"', "[]", "0", "false", '""', str(10**40), '"\\ud800"', '"ä\\n☃"'],
)
def test_a_json_value_comes_back_equal(lckv: Lckv, where: list[str], text: str) -> None:
    assert lckv("set", "k", text, *where) == (0, b"", "")

    code, out, error = lckv("get", "k", *where)

    assert (code, error) == (0, "")
    assert out.endswith(b"\n")
    assert out.count(b"\n") == 1
    assert json.loads(out) == json.loads(text)


def test_the_store_of_the_library_sees_what_the_command_wrote(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "json", '{"n": 1}', *where)
    lckv("set", "text", "plain", "--text", *where)
    with KVStore("kv", where[1]) as store:
        assert store.mget(["json", "text"]) == [{"n": 1}, "plain"]

    lckv("set", "blob", "raw", "--bytes", *where)
    with KVByteStore("kv", where[1]) as blobs:
        assert blobs.mget(["blob"]) == [b"raw"]


@pytest.mark.parametrize("data", [b"", b"-", b"@x", "line 1\nline 2 ä☃\n".encode(), b"\r\n"])
def test_text_from_stdin_comes_out_byte_for_byte(
    lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    stdin(monkeypatch, data)
    assert lckv("set", "k", "-", "--text", *where).code == 0

    assert lckv("get", "k", "--text", *where) == (0, data, "")


def test_bytes_from_a_file_come_out_byte_for_byte(lckv: Lckv, where: list[str], tmp_path: Path) -> None:
    data = bytes(range(256))
    (tmp_path / "value").write_bytes(data)
    assert lckv("set", "k", f"@{tmp_path / 'value'}", "--bytes", *where).code == 0

    assert lckv("get", "k", "--bytes", *where) == (0, data, "")


def test_several_keys_are_printed_as_objects_in_their_order(lckv: Lckv, where: list[str]) -> None:
    for key in "abc":
        lckv("set", key, f'"{key}"', *where)

    code, out, _ = lckv("get", "c", "a", "c", *where)

    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"key": "c", "value": "c"},
        {"key": "a", "value": "a"},
        {"key": "c", "value": "c"},
    ]


def test_a_missing_key_is_exit_code_1_after_the_others_are_printed(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "a", "1", *where)

    code, out, error = lckv("get", "x", "a", *where)

    assert code == 1
    assert json.loads(out) == {"key": "a", "value": 1}
    assert is_one_line(error)
    assert "'x'" in error


def test_a_stored_null_reads_as_missing(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "k", "null", *where)

    code, out, error = lckv("get", "k", *where)

    assert (code, out) == (1, b"")
    assert "missing, or null" in error


def test_a_damaged_value_is_named_and_the_others_are_printed(lckv: Lckv, where: list[str]) -> None:
    with KVStore("kv", where[1]) as store:
        store.mset([("good", "aGk="), ("bad", "?")])

    code, out, error = lckv("get", "good", "bad", "--bytes", *where)
    assert (code, out) == (2, b"")  # one value at a time

    assert lckv("get", "good", "--bytes", *where) == (0, b"hi", "")
    code, out, error = lckv("get", "bad", "--bytes", *where)
    assert (code, out) == (3, b"")
    assert "'bad'" in error
    assert is_one_line(error)


def test_a_damaged_value_does_not_hide_the_good_one(lckv: Lckv, where: list[str]) -> None:
    with KVStore("kv", where[1]) as store:
        store.mset([("good", 1), ("bad", 2)])
    path = where[1].removeprefix("sqlite:")
    with sqlite3.connect(path) as connection:
        body = '{"_id":"bad","value":2,"encoding":"unknown"}'
        (table,) = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'docs_%'").fetchone()
        assert connection.execute(f"UPDATE {table} SET content=? WHERE id='bad'", (body.encode(),)).rowcount == 1
    connection.close()

    code, out, error = lckv("get", "bad", "good", *where)

    assert code == 3
    assert json.loads(out) == {"key": "good", "value": 1}
    assert "'bad'" in error


def test_deleted_keys_are_gone_and_missing_ones_are_no_error(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "a", "1", *where)
    lckv("set", "b", "2", *where)

    assert lckv("del", "a", "x", *where) == (0, b"", "")

    assert lckv("keys", *where).out == b"b\n"


def test_keys_are_listed_by_prefix_and_limit(lckv: Lckv, where: list[str]) -> None:
    with KVStore("kv", where[1]) as store:
        store.mset([(f"{letter}{n}", n) for letter in "ab" for n in range(150)])

    assert set(lckv("keys", "--prefix", "b", *where).out.split()) == {f"b{n}".encode() for n in range(150)}
    assert len(lckv("keys", "--limit", "7", *where).out.split()) == 7
    assert lckv("keys", "--prefix", "c", *where) == (0, b"", "")


def test_keys_with_line_ends_can_be_told_apart_as_json(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "two\nlines", "1", *where)

    assert json.loads(lckv("keys", "--json", *where).out) == "two\nlines"


def test_a_key_that_starts_with_a_dash_follows_two_dashes(lckv: Lckv, where: list[str]) -> None:
    assert lckv("set", *where, "--", "-k", "-1").code == 0
    assert lckv("get", *where, "--", "-k").out == b"-1\n"


def test_keyspaces_are_apart(lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lckv("set", "k", "1", *where, "--keyspace", "one")
    lckv("set", "k", "2", *where, "--keyspace", "two")

    assert lckv("get", "k", *where, "--keyspace", "one").out == b"1\n"
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", "two")
    assert lckv("get", "k", *where).out == b"2\n"


def test_the_url_may_come_from_the_environment(lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", where[1])

    assert lckv("set", "k", "1", "--collection", "kv").code == 0
    assert lckv("get", "k", "--collection", "kv").out == b"1\n"


def test_lckv_url_of_the_environment_wins(lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("LCKV_URL", where[1])

    assert lckv("set", "k", "1", "--collection", "kv").code == 0
    assert lckv("get", "k", "--collection", "kv").out == b"1\n"


WIDE = ["utf-8-sig", "utf-16"]  # with a byte order mark


@pytest.mark.parametrize("encoding", WIDE)
def test_json_with_a_byte_order_mark_is_read(
    lckv: Lckv, where: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    data = '{"a": "\u2603"}'.encode(encoding)
    (tmp_path / "value").write_bytes(data)
    assert lckv("set", "file", f"@{tmp_path / 'value'}", *where) == (0, b"", "")
    stdin(monkeypatch, data)
    assert lckv("set", "stdin", "-", *where) == (0, b"", "")

    with KVStore("kv", where[1]) as store:
        assert store.mget(["file", "stdin"]) == [{"a": "\u2603"}] * 2


@pytest.mark.parametrize("encoding", WIDE)
def test_a_token_with_a_byte_order_mark_and_line_end_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "token").write_bytes("token\r\n".encode(encoding))

    assert read_secret("--token", f"@{tmp_path / 'token'}") == "token"


def test_text_and_bytes_keep_a_byte_order_mark(lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("--text", "--bytes"):
        stdin(monkeypatch, b"\xef\xbb\xbfx")
        lckv("set", form[2:], "-", form, *where)
        assert lckv("get", form[2:], form, *where).out == b"\xef\xbb\xbfx"


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["get", "k"], ["keys"], ["del", "k"]])
def test_a_reading_command_creates_nothing(lckv: Lckv, where: list[str], tmp_path: Path, command: list[str]) -> None:
    code, out, error = lckv(*command, *where)

    assert (code, out) == (3, b"")
    assert is_one_line(error)
    assert f"There is no file {tmp_path / 'kv.db'}" in error
    assert "collection" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["get", "k"], ["keys"], ["del", "k"]])
def test_a_collection_that_is_not_in_the_file_is_named(lckv: Lckv, where: list[str], command: list[str]) -> None:
    lckv("set", "k", "1", *where)

    code, out, error = lckv(*command, *where[:2], "--collection", "mistyped")

    assert (code, out) == (3, b"")
    assert "'mistyped'" in error
    assert lckv("set", "k", "1", *where[:2], "--collection", "mistyped").code == 0  # as it says
    assert "lckv set creates it" in error
    assert lckv(*command, *where[:2], "--collection", "mistyped").code == 0


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["get", "k", "--collection", "kv"], "--db"),
        (["get", "k", "--db", "sqlite:x.db"], "--collection"),
        (["get", "--db", "sqlite:x.db", "--collection", "kv"], "KEY"),
        (["get", "k", "--db", "etcd://h", "--collection", "kv"], "sqlite:"),
        (["get", "k", "--db", "sqlite:x.db", "--collection", "a-b"], "'a-b'"),
        (["get", "k", "--db", "sqlite:x.db", "--collection", "kv", "--keyspace", "a b"], "'a b'"),
        (["get", "", "--db", "sqlite:x.db", "--collection", "kv"], "key"),
        (["get", "k" * 8_001, "--db", "sqlite:x.db", "--collection", "kv"], "8,000"),
        (["get", "\udcff", "--db", "sqlite:x.db", "--collection", "kv"], "surrogate"),
        (["get", "k", "--db", "memory:", "--collection", "kv"], "memory:"),
        (["set", "k", "1", "--db", "memory:", "--collection", "kv"], "memory:"),
        (["get", "k", "--text", "--bytes", "--db", "sqlite:x.db", "--collection", "kv"], "--bytes"),
        (["get", "k", "j", "--text", "--db", "sqlite:x.db", "--collection", "kv"], "--text"),
        (["set", "k", "secret-value", "--db", "sqlite:x.db", "--collection", "kv"], "JSON"),
        (["set", "k", "NaN", "--db", "sqlite:x.db", "--collection", "kv"], "'k'"),
        (["set", "k", "[" * 100_000, "--db", "sqlite:x.db", "--collection", "kv"], "JSON"),
        (["set", "k", "9" * 5_000, "--db", "sqlite:x.db", "--collection", "kv"], "JSON"),
        (["set", "k", "@nowhere", "--db", "sqlite:x.db", "--collection", "kv"], "'nowhere'"),
        (["set", "k", "@.", "--db", "sqlite:x.db", "--collection", "kv"], "'.'"),
        (["set", "k", "@a\0b", "--db", "sqlite:x.db", "--collection", "kv"], "file"),
        (["set", "k", "--db", "sqlite:x.db", "--collection", "kv"], "VALUE"),
        (["keys", "--limit", "0", "--db", "sqlite:x.db", "--collection", "kv"], "--limit"),
        (["unknown"], "unknown"),
        (["get", "--unknown"], "--unknown"),
        (["get", "--unknown"], "See lckv get --help."),
        (["keys", "--db", "sqlite:x.db"], "See lckv keys --help."),
        (["unknown"], "See lckv --help."),
        (["get", "k", "--db", "x.db", "--collection", "kv"], "did you mean sqlite:x.db?"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line_that_names_it(
    lckv: Lckv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], names: str
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, error = lckv(*arguments)

    assert (code, out) == (2, b"")
    assert is_one_line(error)
    assert names in error
    assert "secret-value" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_not_text_is_not_printed_as_text(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "k", '["secret-value"]', *where)

    code, out, error = lckv("get", "k", "--text", *where)

    assert (code, out) == (2, b"")
    assert "'k'" in error
    assert "secret-value" not in error


def test_text_that_is_not_utf8_is_refused(lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"ab\xff")

    code, _, error = lckv("set", "k", "-", "--text", *where)

    assert code == 2
    assert "byte 2" in error
    assert "--bytes" in error


def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(lckv: Lckv, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"not a database, but dear to someone\n" * 100)
    before = path.read_bytes()

    code, _, error = lckv("set", "k", "1", "--db", f"sqlite:{path}", "--collection", "kv")

    assert code == 3
    assert is_one_line(error)
    assert path.read_bytes() == before


def test_a_directory_that_does_not_exist_is_refused(lckv: Lckv, tmp_path: Path) -> None:
    code, _, error = lckv("set", "k", "1", "--db", f"sqlite:{tmp_path / 'no' / 'kv.db'}", "--collection", "kv")

    assert code in (2, 3)
    assert is_one_line(error)
    assert "no" in error


@pytest.mark.parametrize("given", ["secret-token", "", "AstraCS:secret-token"])
def test_a_literal_token_is_refused_and_not_repeated(lckv: Lckv, where: list[str], given: str) -> None:
    code, _, error = lckv("get", "k", *where, "--token", given)

    assert code == 2
    assert "@FILE" in error
    assert "secret" not in error


@pytest.mark.parametrize("content", [b"", b" \n", b"secret\nsecret", b"s\xc3\xa9cret", b"\xff"])
def test_a_file_without_a_token_is_refused_and_not_repeated(
    lckv: Lckv, where: list[str], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)

    code, _, error = lckv("get", "k", *where, "--token", f"@{tmp_path / 'file'}")

    assert code == 2
    assert "cret" not in error


# -- what becomes of each error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectError("no"), 4),
        (RequestTimeoutError("no"), 4),
        (AuthError("no"), 3),
        (LimitError("no"), 3),
        (CollectionConflictError("no"), 3),
        (EngineFileError("no"), 3),
        (EngineBusyError("no"), 3),
        (PartialWriteError("no", written=(), unwritten=("k",), unknown=(), errors={"k": ConnectError("no")}), 4),
        (PartialWriteError("no", written=(), unwritten=("k",), unknown=(), errors={"k": LimitError("no")}), 3),
        (PartialWriteError("no", written=(), unwritten=("k",), unknown=()), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, StoreError) else str(value),
)
def test_the_exit_code_says_whether_the_service_refused_or_was_not_reached(
    lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch, error: StoreError, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(EngineBackend, "put_many", fail)

    assert lckv("set", "k", "1", *where) == (code, b"", "lckv: no\n")


def test_a_message_of_several_lines_is_shown_on_one(
    lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectError("one\n  two\nthree")

    monkeypatch.setattr(EngineBackend, "put_many", fail)

    assert lckv("set", "k", "1", *where).error == "lckv: one two three\n"


def test_a_server_that_is_not_there_is_exit_code_4(lckv: Lckv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_kv.limits.DEADLINE_S", 0.3)

    code, _, error = lckv("get", "k", "--db", "http://127.0.0.1:1", "--collection", "kv")

    assert code == 4
    *warnings, last = error.splitlines(keepends=True)
    assert is_one_line(last)
    assert all(line.startswith("lckv: warning: ") and "trying for up to" in line for line in warnings)


def test_help_is_asked_for_by_h_or_nothing(lckv: Lckv) -> None:
    asked = lckv("--help")

    assert asked.code == 0
    assert lckv("-h") == asked
    assert lckv() == asked
    assert lckv("get", "-h") == lckv("get", "--help")
    assert b"Usage: lckv get" in lckv("get", "-h").out


def test_help_and_version_are_no_errors(lckv: Lckv) -> None:
    from langchain_kv import __version__

    assert lckv("--version") == (0, f"lckv {__version__}\n".encode(), "")
    code, out, error = lckv("--help")
    assert (code, error) == (0, "")
    for command in (b"serve", b"get", b"set", b"del", b"keys"):
        assert command in out


@pytest.mark.parametrize("command", ["serve", "get", "set", "del", "keys"])
def test_every_command_has_help(lckv: Lckv, command: str) -> None:
    code, out, error = lckv(command, "--help")

    assert (code, error) == (0, "")
    assert b"--db" in out


def test_a_number_beyond_floats_is_not_printed_as_something_that_is_no_json() -> None:
    with pytest.raises(ValueError, match="float's range"):
        json_line({"a": [float("inf")]})


# -- the words of messages --------------------------------------------------------------------------------------------


def test_each_phrase_that_is_put_in_other_words_is_one_of_the_package() -> None:
    source = "".join(
        text
        for path in Path(langchain_kv.__file__).parent.rglob("*.py")
        if path.name != "wording.py"
        for text in texts_of(path)
    )

    assert [phrase for phrase in [*PHRASES, *NAMES] if phrase not in source] == []


def texts_of(path: Path) -> Iterator[str]:
    """Yield the texts of a module, those that are put together of several as one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


PYTHON_WORDS = re.compile(r"\b\w+=(?![\w-]+[|\w])|\(\)|\.\w+ holds|See \.|SetupMode|\b\w+_s\b|\bNone\b")


def test_what_the_command_says_has_no_words_of_python(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "bad", '"?"', *where)
    errors = [
        lckv("get", "bad", "--bytes", *where),
        lckv("set", "k", "NaN", *where),
        lckv("get", "k", "--db", "etcd://h", "--collection", "kv"),
        lckv("get", "k", "--db", "https://u:p@h", "--collection", "kv"),
        lckv("get", "k", *where[:2], "--collection", "no"),
        lckv("backup", where[1], where[1].removeprefix("sqlite:")),
    ]
    with KVStore("kv", where[1]) as store, run_in_thread(store._backend._engine, "token") as url:  # type: ignore[attr-defined]
        errors += [
            lckv("get", "k", "--db", url, "--collection", "kv"),
            lckv("get", "k", "--db", url, "--collection", "kv", "--token", token_file(where, "wrong")),
            lckv("get", "k", "--db", url, "--collection", "no", "--token", token_file(where, "token")),
        ]

    assert all(one.code in (2, 3) and is_one_line(one.error) for one in errors), errors
    assert [one.error for one in errors if PYTHON_WORDS.search(one.error)] == []


def token_file(where: list[str], token: str) -> str:
    path = Path(where[1].removeprefix("sqlite:")).with_name(f"{token}.txt")
    path.write_text(token)
    return f"@{path}"


def test_a_partial_write_is_told_without_attributes() -> None:
    failed = {"b": ConnectError("Lost.")}
    error = PartialWriteError.of("stored", written=("a",), unwritten=("b",), unknown=(), errors=failed)
    assert worded(str(error)) == (
        "1 of 2 keys were stored; the others ('b') failed, the first with: Lost. Repeating the command is safe."
    )
    assert worded("raise deadline_s, or use smaller batches") == "raise --timeout, or use smaller batches"


@pytest.mark.parametrize("moment", [253_402_300_800_000, 10**17, 2**62])
def test_a_moment_that_is_no_date_is_shown_as_its_number(lckv: Lckv, where: list[str], moment: int) -> None:
    with closing(parse_url(where[1]).open(BackendOptions("kv", "default_keyspace"))) as backend:
        backend.open()
        backend.put_many([Record("k", b"1", expires_at_ms=moment), Record("z", b"2")])
    code, out, _ = lckv("items", *where)

    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"key": "k", "value": 1, "expires_at": str(moment)},
        {"key": "z", "value": 2},
    ]

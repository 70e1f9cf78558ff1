"""Each error has an exit code and a code of its own, which stay; and every command ends by them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_kv import errors
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.cli.dispatch import NAMES, command_of
from langchain_kv.cli.notes import FIXES, PARTLY, REFUSED, UNREACHABLE, USAGE
from langchain_kv.cli.targets import Target
from langchain_kv.errors import ConnectError, DataAPIError, LimitError, PartialWriteError, StoreError
from langchain_kv.limits import DEADLINE_S
from running import Lckv

KNOWN = {
    "StoreError": (REFUSED, "STORE"),
    "UsageError": (USAGE, "USAGE"),
    "ConfigError": (USAGE, "USAGE"),
    "UnsupportedError": (USAGE, "UNSUPPORTED"),
    "InvalidKeyError": (USAGE, "INVALID_KEY"),
    "InvalidValueError": (USAGE, "INVALID_VALUE"),
    "InvalidValueTypeError": (USAGE, "INVALID_VALUE_TYPE"),
    "SetupPendingError": (USAGE, "SETUP_PENDING"),
    "StoreClosedError": (REFUSED, "STORE_CLOSED"),
    "TransportError": (UNREACHABLE, "TRANSPORT"),
    "ConnectError": (UNREACHABLE, "CONNECT"),
    "RequestTimeoutError": (UNREACHABLE, "REQUEST_TIMEOUT"),
    "BadReplyError": (UNREACHABLE, "BAD_REPLY"),
    "DataAPIError": (REFUSED, "DATA_API"),
    "AuthError": (REFUSED, "AUTH"),
    "UnknownCollectionError": (REFUSED, "UNKNOWN_COLLECTION"),
    "UnknownKeyspaceError": (REFUSED, "UNKNOWN_KEYSPACE"),
    "DocumentExistsError": (REFUSED, "DOCUMENT_EXISTS"),
    "LimitError": (REFUSED, "LIMIT"),
    "CollectionConflictError": (REFUSED, "COLLECTION_CONFLICT"),
    "AstraDBError": (REFUSED, "ASTRA_DB"),
    "PartialWriteError": (REFUSED, "PARTIAL_WRITE"),
    "DamagedValueError": (REFUSED, "DAMAGED_VALUE"),
    "BadVectorError": (REFUSED, "BAD_VECTOR"),
    "EngineError": (REFUSED, "ENGINE"),
    "EngineFileError": (REFUSED, "ENGINE_FILE"),
    "EngineBusyError": (REFUSED, "ENGINE_BUSY"),
}
"""Scripts rely on these: none is changed."""


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    return ["--db", f"sqlite:{tmp_path / 'kv.db'}", "--collection", "kv"]


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(EngineBackend, "put_many", fail)


def told(error: str) -> dict[str, object]:
    """Return the error that stderr has, as its only line."""
    assert error.count("\n") == 1
    fields: dict[str, object] = json.loads(error)["error"]
    assert list(fields) == ["code", "message", "fix", "retryable"]
    assert isinstance(fields["message"], str)
    assert fields["fix"] is None or isinstance(fields["fix"], str)
    assert isinstance(fields["retryable"], bool)
    return fields


def test_every_error_of_the_package_has_its_codes() -> None:
    assert {name for name in errors.__all__ if issubclass(getattr(errors, name), StoreError)} == KNOWN.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_an_error_ends_a_command_with_its_exit_code_and_its_own(
    lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = getattr(errors, name)
    raising(monkeypatch, kind("what went\nwrong"))

    code, out, error = lckv("set", "k", "1", *where)
    assert (code, out, error) == (KNOWN[name][0], b"", "lckv: what went wrong\n")

    code, out, error = lckv("set", "k", "1", "--json", *where)
    fields = told(error)
    assert (code, out) == (KNOWN[name][0], b"")
    assert (fields["code"], fields["message"]) == (KNOWN[name][1], "what went wrong")
    assert fields["retryable"] is bool(kind("").retryable)


def test_a_code_of_a_data_api_that_has_no_class_is_told_as_it_is(
    lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, DataAPIError.of("TIMEOUT_WRITING_DATA", "slow"))

    fields = told(lckv("set", "k", "1", "--json", *where).error)

    assert (fields["code"], fields["retryable"]) == ("TIMEOUT_WRITING_DATA", True)


@pytest.mark.parametrize(
    ("written", "cause", "code"),
    [
        (("a",), ConnectError("no"), PARTLY),
        (("a",), LimitError("no"), PARTLY),
        ((), ConnectError("no"), UNREACHABLE),
        ((), LimitError("no"), REFUSED),
    ],
)
def test_what_was_done_in_part_is_told_from_what_was_not(
    lckv: Lckv,
    where: list[str],
    monkeypatch: pytest.MonkeyPatch,
    written: tuple[str, ...],
    cause: StoreError,
    code: int,
) -> None:
    raising(monkeypatch, PartialWriteError("no", written=written, unwritten=("k",), unknown=(), errors={"k": cause}))

    assert lckv("set", "k", "1", *where).code == code


def test_each_fix_is_of_a_code_that_is_there() -> None:
    own = {"MISSING", "STDOUT", "EXTRA"}

    assert FIXES.keys() <= {name for _, name in KNOWN.values()} | own


# -- every command ----------------------------------------------------------------------------------------------------


def words_of(name: str, url: str) -> list[str]:
    """Return a command line that lacks nothing."""
    command = command_of(name)
    shell = {"SHELL": "bash", "DB": url, "FILE": "copy.db", "FROM": url, "TO": "sqlite:to.db"}
    words = [shell.get(each.metavar, "k") for each in command.arguments if each.required or name == "del"]
    values = {"--db": url, "--collection": "kv", "--layout": "files"}
    return [
        name,
        *words,
        *(word for each in command.options if each.required for word in (each.name, values[each.name])),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_is_exit_code_2_of_every_command_and_nothing_is_made(
    lckv: Lckv, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, error = lckv(*words_of(name, "sqlite:no.db"), "--no-such-option")
    assert (code, out) == (2, b"")
    assert "--no-such-option" in error
    assert f"See lckv {name} --help." in error

    code, out, error = lckv(*words_of(name, "sqlite:no.db"), "--json", "--no-such-option")
    assert (code, out, told(error)["code"]) == (2, b"", "USAGE")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_exit_code_2_of_every_command(
    lckv: Lckv, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LCKV_URL", "ASTRA_DB_API_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    command = command_of(name)
    if not any(each.required for each in (*command.arguments, *command.options)):
        assert name in ("serve", "explore")  # all that it takes may be left out, or be in a variable
        return
    code, out, error = lckv(name)

    assert (code, out) == (2, b"")
    assert "is missing" in error


def takes_a_url(name: str) -> bool:
    return any(option.name == "--db" and option.required for option in command_of(name).options)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if takes_a_url(name) and name not in ("set", "compact", "load")]
)
def test_a_service_that_is_not_there_is_exit_code_4_of_every_command(lckv: Lckv, name: str) -> None:
    words = words_of(name, "http://127.0.0.1:1")
    extra = {"drop": ["--yes"], "clear": ["--yes"]}.get(name, [])

    code, out, error = lckv(*words, *extra, "--timeout", "0.01", "--json")

    assert (code, out) == (4, b"")
    last = error.splitlines(keepends=True)[-1]
    assert told(last)["code"] in ("CONNECT", "REQUEST_TIMEOUT")  # the time may be over before it is refused
    assert all("note" in json.loads(line) for line in error.splitlines()[:-1])


@pytest.mark.parametrize("name", [name for name in NAMES if takes_a_url(name)])
def test_memory_is_refused_by_every_command(lckv: Lckv, name: str) -> None:
    assert lckv(*words_of(name, "memory:")).code == 2


@pytest.mark.parametrize("name", NAMES)
def test_help_is_under_24_lines_and_has_an_example(lckv: Lckv, name: str) -> None:
    code, out, error = lckv(name, "--help")

    lines = out.decode().splitlines()
    assert (code, error) == (0, "")
    assert len(lines) < 24
    assert max(map(len, lines)) < 80
    assert lines[0].startswith(f"Usage: lckv {name}")
    assert re.match(r"Example: .*\blckv\b", lines[-1])


def test_the_help_of_all_is_under_24_lines(lckv: Lckv) -> None:
    out = lckv("--help").out.decode()

    assert out.count("\n") < 24
    assert all(re.search(rf"\b{name}\s+\(", out) for name in NAMES)


COMMANDS_ON_A_TARGET = [
    "count --collection kv",
    "info",
    *("collections", "check", "namespaces --collection kv", "purge --collection kv"),
    *("clear --yes --collection kv", "drop --yes --collection kv"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "redis://:sEcret@127.0.0.1:1",
        "mongodb://u:sEcret@127.0.0.1:1/d",
        "postgresql://u:sEcret@127.0.0.1:1/d",
        "mysql://u:sEcret@127.0.0.1:1/d",
        "upstash+http://127.0.0.1:1",
        "cassandra://u:sEcret@127.0.0.1:1",
    ],
    ids=lambda url: url.partition(":")[0],
)
@pytest.mark.parametrize("command", COMMANDS_ON_A_TARGET, ids=lambda command: command.partition(" ")[0])
def test_a_service_of_any_kind_that_is_not_there_is_exit_code_4_and_no_password_is_told(
    lckv: Lckv, url: str, command: str
) -> None:
    code, out, error = lckv(*command.split(), "--db", url, "--timeout", "1")

    assert (code, out) == (4, b"")
    assert error.startswith("lckv: ")
    assert "sEcret" not in error
    assert "Traceback" not in error


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    "url",
    [
        *("postgresql://u:p@{}/d", "mysql://u:p@{}/d", "redis://{}", "mongodb://{}/d", "cassandra://u:p@{}/ks"),
        *("http://{}", "upstash+http://{}"),
    ],
    ids=lambda url: url.partition(":")[0],
)
@pytest.mark.slow
def test_a_service_that_never_answers_is_exit_code_4(
    lckv: Lckv, url: str, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "t")
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", "t")
    db = ["--db", url.format(f"127.0.0.1:{silent}"), "--collection", "kv", "--timeout", "1"]

    code, out, error = lckv("count", *db)

    assert (code, out) == (4, b"")
    assert error.startswith("lckv: ")


@pytest.mark.parametrize(("timeout_s", "request_s"), [(1, 1), (45, 30), (None, 30)])
def test_no_request_is_waited_for_longer_than_was_said(timeout_s: float | None, request_s: float) -> None:
    for url in ("postgresql://u:p@h/d", "mysql://u:p@h/d", "redis://h", "mongodb://h/d", "http://h"):
        target = Target.named(url, "kv", timeout_s=timeout_s)

        assert (target.options.request_timeout_s, target.options.deadline_s) == (request_s, timeout_s or DEADLINE_S)

"""``lckv`` as a process: signals, closed pipes, the server, and what it loads."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from langchain_kv import KVStore
from langchain_kv.cli.main import run
from langchain_kv.testing import DataAPIServer
from served import LCKV, STRICT, TOKEN, Server, ask, environment


def python(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_listens_answers_there_and_ends_with_0(
    serve: Callable[..., Server], tmp_path: Path, number: int
) -> None:
    server = serve("--db", f"sqlite:{tmp_path / 'kv.db'}", LCKV_TOKEN=TOKEN, **STRICT)

    assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+\n", server.line)
    with KVStore("kv", server.url, token=TOKEN) as store:
        store.mset([("a", {"n": 1})])
        assert store.mget(["a"]) == [{"n": 1}]
    assert server.end(number) == (0, "", "")
    with KVStore("kv", f"sqlite:{tmp_path / 'kv.db'}") as store:
        assert store.mget(["a"]) == [{"n": 1}]


@pytest.mark.slow
def test_the_commands_work_against_the_server_with_a_token_from_a_file(
    serve: Callable[..., Server], tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    token = ["--token", f"@{tmp_path / 'token'}"]
    server = serve("--db", "memory:", *token)
    where = ["--db", server.url, "--collection", "kv"]

    assert run(["set", "a", "[1]", *where, *token]) == 0
    assert run(["get", "a", *where, *token]) == 0
    assert run(["keys", *where, *token]) == 0
    assert capsysbinary.readouterr() == (b"[1]\na\n", b"")

    assert run(["get", "a", *where]) == 3  # no token
    assert run(["get", "a", "--db", server.url, "--collection", "other", *token]) == 3
    out, error = capsysbinary.readouterr()
    assert out == b""
    assert error.count(b"\n") == 2
    assert TOKEN.encode() not in error


@pytest.mark.slow
@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\n{}"])
def test_white_space_around_the_token_of_the_environment_is_taken_off(
    serve: Callable[..., Server], around: str
) -> None:
    server = serve("--db", "memory:", LCKV_TOKEN=around.format(TOKEN))

    assert "status" in ask(server.url, TOKEN, {"findKeyspaces": {}})


@pytest.mark.slow
@pytest.mark.parametrize("is_token_given", [False, True])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_user_and_a_password_open_the_door_beside_a_token(
    serve: Callable[..., Server], tmp_path: Path, by_file: bool, is_token_given: bool
) -> None:
    (tmp_path / "password").write_text("pässword\n", "utf-8")
    variables = {} if by_file else {"LCKV_PASSWORD": "pässword"}
    options = ["--password", f"@{tmp_path / 'password'}"] if by_file else []
    if is_token_given:
        variables["LCKV_TOKEN"] = TOKEN
    server = serve("--db", "memory:", "--user", "ann", *options, **variables)
    login = "Cassandra:YW5u:cMOkc3N3b3Jk"

    assert "status" in ask(server.url, login, {"findKeyspaces": {}})
    if is_token_given:
        assert "status" in ask(server.url, TOKEN, {"findKeyspaces": {}})
    for wrong in (None, "ann", "Cassandra:YW5u:YW5u", "" if is_token_given else TOKEN):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(server.url, wrong, {"findKeyspaces": {}})
    assert server.end() == (0, "", "")  # no token was made


@pytest.mark.slow
def test_on_loopback_without_a_token_one_is_made_and_needed(serve: Callable[..., Server]) -> None:
    server = serve()
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        ask(server.url, None, {"findKeyspaces": {}})
    refused.value.close()
    code, out, error = server.end()

    assert (code, out) == (0, "")
    notes = error.splitlines()
    assert len(notes) == 2
    assert "memory" in notes[0]
    assert re.search(r"token given, made one for this run: [\w-]{32}$", notes[1])


@pytest.mark.slow
def test_the_token_that_was_made_is_the_one_that_works(serve: Callable[..., Server]) -> None:
    server = serve("--db", "memory:")
    assert server.process.stderr is not None
    token = server.process.stderr.readline().split()[-1]

    assert "status" in ask(server.url, token, {"findKeyspaces": {}})


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (["--host", "0.0.0.0"], 2, "LCKV_TOKEN"),
        (["--host", "::"], 2, "LCKV_TOKEN"),
        (["--host", "example.org"], 2, "LCKV_TOKEN"),
        (["--token", "secret"], 2, "@FILE"),
        (["--db", "https://example.org"], 2, "sqlite:"),
        (["--db", "nonsense"], 2, "sqlite:"),
        (["--port", "65536"], 2, "--port"),
        (["--port", "-1"], 2, "--port"),
        (["--workers", "2"], 2, "--workers"),
        (["--user", "ann"], 2, "--password @FILE"),
        (["--user", ""], 2, "--password @FILE"),
        (["--password", "secret"], 2, "@FILE"),
        (["--user", "ann", "--password", f"@{__file__}"], 2, "one line"),
        (["--token", f"@{__file__}"], 2, "one line"),
    ],
)
def test_a_server_that_may_not_start_says_why(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, names: str
) -> None:
    assert run(["serve", *arguments]) == code

    out, error = capsys.readouterr()
    assert out == ""
    last = error.splitlines()[-1]
    assert last.startswith("lckv: ")
    assert names in last
    assert "secret" not in error


def test_a_file_that_cannot_be_served_is_an_error_before_anything_listens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "other.db").write_bytes(b"not ours" * 1_000)

    assert run(["serve", "--db", f"sqlite:{tmp_path / 'other.db'}", "--port", "0"]) == 3

    out, error = capsys.readouterr()
    assert out == ""
    assert "other.db" in error


@pytest.mark.slow
def test_a_port_in_use_is_named(serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]) -> None:
    port = serve("--db", "memory:").url.rpartition(":")[2]

    assert run(["serve", "--db", "memory:", "--port", port]) == 2

    assert port in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    with KVStore("kv", f"sqlite:{tmp_path / 'kv.db'}") as store:
        store.mset([(f"{n:0100}", n) for n in range(5_000)])  # more than a pipe and a buffer hold
    command = [*LCKV, "keys", "--db", f"sqlite:{tmp_path / 'kv.db'}", "--collection", "kv"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment(**STRICT)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141


@pytest.mark.slow
def test_ctrl_c_ends_a_command_with_130_and_no_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "value"
    os.mkfifo(fifo)
    command = [*LCKV, "set", "k", f"@{fifo}", "--db", f"sqlite:{tmp_path / 'kv.db'}", "--collection", "kv"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
        with fifo.open("wb"):  # returns when the command opens it, to read a value that never comes
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)

    assert process.returncode == 130
    assert error.strip() == b""
    assert not (tmp_path / "kv.db").exists()


@pytest.mark.slow
def test_without_the_extra_serve_says_what_to_install_and_the_others_work(tmp_path: Path) -> None:
    without = "import sys; sys.modules['httptools'] = None\nfrom langchain_kv.cli.main import run; sys.exit(run({}))"
    where = ["--db", f"sqlite:{tmp_path / 'kv.db'}", "--collection", "kv"]

    done = python(without.format(["serve", "--db", "memory:"]))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'langchain-kv[cli]'" in done.stderr
    assert python(without.format(["set", "k", "1", *where])).returncode == 0
    assert python(without.format(["get", "k", *where])).stdout == "1\n"


@pytest.mark.slow
def test_help_loads_no_store_of_any_kind() -> None:
    heavy = ["aiohttp", "uvloop", "orjson", "msgspec", "httptools", "sqlite3"]
    script = (
        "import sys\nfrom langchain_kv.cli.main import run\nrun(['--help'])\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = python(script)

    assert done.stderr.strip() == "[]"


LOADED = """
import sys
before = set(sys.modules)
from langchain_kv.cli.main import run
run({arguments!r})
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a command loads, with its stdout piped."""
    kept = {name: value for name, value in environment().items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", LOADED.format(arguments=arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.slow
def test_the_version_loads_next_to_nothing() -> None:
    loaded = loaded_by("--version")

    ours = {"_version", "cli", "cli.dispatch", "cli.main", "cli.notes", "cli.output", "cli.parsing", "errors"}
    assert {name for name in loaded if name.startswith("langchain")} == {
        "langchain_kv",
        *(f"langchain_kv.{name}" for name in ours),
    }
    assert len(loaded) < 60


HEAVY = {"langchain_core", "pydantic", "rich", "typer", "click", "argparse", "asyncio", "ssl", "aiohttp", "numpy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["get", "k"], ["set", "k", "1"], ["del", "x"], ["keys"], ["items"], ["count"], ["namespaces"], ["clear", "--yes"]],
    ids=lambda command: command[0],
)
def test_a_command_on_a_file_loads_neither_langchain_nor_an_event_loop(where: list[str], command: list[str]) -> None:
    loaded = loaded_by(*command, *where)

    assert "sqlite3" in loaded
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("langchain_kv.stores")} == set()


@pytest.mark.slow
def test_a_command_over_http_loads_the_library_for_it_and_nothing_else_that_is_heavy(
    data_api: DataAPIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", data_api.token)
    with KVStore("kv", data_api.url, token=data_api.token) as store:
        store.mset([("k", 1)])
    library = "import sys; before = set(sys.modules); import asyncio, ssl, aiohttp; print(*set(sys.modules) - before)"
    loaded = loaded_by("get", "k", "--db", data_api.url, "--collection", "kv")

    more = {name.partition(".")[0] for name in loaded - set(python(library).stdout.split())}
    assert more - sys.stdlib_module_names <= {"langchain_kv", "uvloop", "msgspec", "orjson"}
    assert more & {"sqlite3", "argparse"} == set()
    of_others = ("stores", "engines.sqlite", "engines.cassandra", "server", "explorer", "moving")
    assert {name for name in loaded if name.startswith(tuple(f"langchain_kv.{one}" for one in of_others))} == set()


@pytest.mark.slow
def test_a_command_on_a_terminal_loads_no_more(where: list[str]) -> None:
    script = (
        f"from running import on_a_terminal; print(on_a_terminal('items', *{where!r}, PYTHONPROFILEIMPORTTIME='1')[2])"
    )
    done = python(f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{script}")

    loaded = set(re.findall(r"\|\s+([\w.]+)$", done.stdout, re.MULTILINE))
    assert "langchain_kv.cli.table" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.slow
def test_a_warning_is_one_line_and_not_a_place_in_the_code(tmp_path: Path) -> None:
    script = (
        "import sys, warnings\nfrom langchain_kv.cli import main as command\n"
        "command.run = lambda _: warnings.warn('one\\ntwo', UserWarning) or 0\nsys.exit(command.main())"
    )
    done = python(script)

    assert (done.returncode, done.stderr) == (0, "lckv: warning: one two\n")


INTERRUPTED_AT = """
import importlib.abc, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from langchain_kv.cli.main import main
sys.argv = ["lckv", "get", "k", "--db", "http://127.0.0.1:1", "--collection", "kv"]
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["langchain_kv.cli.dispatch", "langchain_kv.cli.targets", "msgspec", "aiohttp"])
def test_ctrl_c_while_the_command_is_loading_is_quiet(name: str) -> None:
    done = python(INTERRUPTED_AT.format(name=name))

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.slow
def test_what_can_be_interrupted_without_the_commands_care_loads_next_to_nothing() -> None:
    done = python(
        "import os, sys; before = set(sys.modules); import langchain_kv.cli.main\n"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('langchain_kv')))"
    )

    assert done.stdout in ("[]\n", "['__future__']\n")


NO_STDIN = "give it as JSON, or as @FILE"


def shell(line: str, where: list[str]) -> subprocess.CompletedProcess[str]:
    command = " ".join(shlex.quote(part) for part in LCKV)
    script = line.replace("lckv", command).replace("WHERE", " ".join(map(shlex.quote, where)))
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment(**STRICT), check=False)


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    with KVStore("kv", f"sqlite:{tmp_path / 'kv.db'}") as store:
        store.mset([("k", "value")])
    return ["--db", f"sqlite:{tmp_path / 'kv.db'}", "--collection", "kv"]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("command", ["get k WHERE", "keys WHERE", "--help", "--version"])
def test_stdout_that_cannot_be_written_is_exit_code_3_and_said(where: list[str], command: str) -> None:
    done = shell(f"lckv {command} > /dev/full", where)

    assert (done.returncode, done.stderr) == (3, "lckv: cannot write to stdout: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("lckv get k WHERE >&-", 3, "lckv: cannot write to stdout: Bad file descriptor\n"),
        ("lckv set k 1 WHERE >&-", 0, ""),
        (
            "lckv set k - WHERE <&-",
            2,
            "lckv: There is no stdin to read the value from: give it as JSON, or as @FILE.\n",
        ),
        ("lckv set k - WHERE 0>/dev/null", 2, "lckv: Cannot read stdin: Bad file descriptor.\n"),
        ("lckv load - WHERE 0>/dev/null", 2, "lckv: The dump cannot be read: Bad file descriptor.\n"),
        ("lckv get missing WHERE 2>&-", 1, ""),
        ("lckv get missing WHERE 2>/dev/full", 1, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(where: list[str], line: str, code: int, error: str) -> None:
    done = shell(line, where)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", error)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_an_error_after_some_output_that_cannot_be_written_is_the_one_that_is_told(
    where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # else nothing is left to be written at the end
    with KVStore("kv", where[1]) as store:
        store.mset([("damaged", 1)])
    with closing(sqlite3.connect(where[1].removeprefix("sqlite:"))) as database, database:
        (table,) = database.execute("SELECT id FROM collections").fetchone()
        database.execute(f"UPDATE docs_{table} SET content='{{broken' WHERE id='damaged'")
    for reader in ("> /dev/full", "| true"):
        done = shell(f"lckv get k damaged WHERE {reader}", where)
        code = 3 if ">" in reader else 0

        assert (done.returncode, done.stderr.count("\n")) == (code, 1)
        assert "'damaged'" in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.slow
def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "langchain_kv", "--help"], capture_output=True, text=True, env=environment(), check=True
    )

    assert done.stdout.lstrip().startswith("Usage: lckv ")

"""``lckv copy``, ``diff``, ``dump`` and ``load``: what they leave, what they say, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from langchain_kv import BackendOptions, Kind, KVByteStore, Record
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.cli.main import run
from langchain_kv.errors import EngineError
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import DataAPIServer
from langchain_kv.values.lenient import exact_numbers
from moving_values import contents, records
from served import LCKV


class Outcome(NamedTuple):
    code: int
    out: str
    error: list[str]


Lckv = Callable[..., Outcome]
KV = ("--collection", "kv")


@pytest.fixture
def lckv(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lckv:
    """Run a command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        code = run(arguments)
        out, error = capsysbinary.readouterr()
        return Outcome(code, out.decode(), error.decode().splitlines())

    return call


def put(url: str, some: list[Record], collection: str = "kv") -> None:
    with closing(parse_url(url).open(BackendOptions(collection, "default_keyspace"))) as backend:
        backend.open()
        backend.put_many(some)


def kept(url: str, collection: str = "kv") -> dict[str, Any]:
    with closing(parse_url(url).open(BackendOptions(collection, "default_keyspace"))) as backend:
        return contents(backend)


# -- dump and load ----------------------------------------------------------------------------------------------------


def test_what_is_dumped_is_loaded_with_kinds_and_expiry(lckv: Lckv) -> None:
    put("sqlite:a.db", records(1_500))
    dump = lckv("dump", "--db", "sqlite:a.db", *KV)
    Path("a.ndjson").write_text(dump.out)
    loaded = lckv("load", "a.ndjson", "--db", "sqlite:b.db", *KV)

    assert (dump.code, loaded.code, loaded.out) == (0, 0, "")
    assert kept("sqlite:b.db") == kept("sqlite:a.db")
    assert dump.error == ["lckv: read 1,500, written 1,500, replaced 0, same 0, skipped 0, failed 0"]
    assert loaded.error == dump.error
    assert json.loads(dump.out.splitlines()[0]).items() >= {"lckv": 1, "collection": "kv", "prefix": ""}.items()


def test_a_namespace_goes_alone_and_comes_into_another(lckv: Lckv) -> None:
    lckv("set", "a", "1", "--db", "sqlite:a.db", *KV, "--namespace", "users")
    lckv("set", "b", "2", "--db", "sqlite:a.db", *KV)
    dump = lckv("dump", "--db", "sqlite:a.db", *KV, "--namespace", "users").out
    lckv("load", "-", "--db", "sqlite:b.db", *KV, "--namespace", "people", stdin=dump.encode())

    assert lckv("get", "a", "--db", "sqlite:b.db", *KV, "--namespace", "people").out == "1\n"
    assert len(kept("sqlite:b.db")) == 1


def test_a_dump_that_is_cut_off_is_loaded_as_far_as_it_goes_with_exit_code_5(lckv: Lckv) -> None:
    put("sqlite:a.db", records(10))
    dump = lckv("dump", "--db", "sqlite:a.db", *KV).out
    Path("cut").write_text(dump[: dump.rindex("\n", 0, -1) - 5])
    code, _, error = lckv("load", "cut", "--db", "sqlite:b.db", *KV)

    assert code == 5
    assert error[-1] == "lckv: The dump is not whole: it is cut off after 9 values: its last line is missing"
    assert len(kept("sqlite:b.db")) == 9
    assert lckv("load", "cut", "--db", "sqlite:b.db", *KV, "--json").error[-1].startswith('{"error": {"code": "TRUNC')


def test_a_dump_that_was_changed_is_refused_whole_but_from_stdin_told_at_the_end(lckv: Lckv) -> None:
    put("sqlite:a.db", [Record("a", b"1111"), Record("b", b"2")])
    dump = lckv("dump", "--db", "sqlite:a.db", *KV).out.replace("1111", "1112")
    Path("changed").write_text(dump)
    code, _, error = lckv("load", "changed", "--db", "sqlite:b.db", *KV)

    assert (code, len(error)) == (3, 1)
    assert "SHA-256" in error[0]
    assert not Path("b.db").exists()
    assert lckv("load", "-", "--db", "sqlite:b.db", *KV, stdin=dump.encode()).code == 5


@pytest.mark.parametrize("first", ["", "nonsense", '{"lckv": 2}'])
def test_what_is_no_dump_makes_no_collection(lckv: Lckv, first: str) -> None:
    Path("x").write_text(first)
    code, _, error = lckv("load", "x", "--db", "sqlite:b.db", *KV)

    assert (code, len(error)) == (3, 1)
    assert not Path("b.db").exists()


@pytest.mark.parametrize("name", ["missing", ".", "\0"])
def test_a_dump_that_cannot_be_read_is_wrong_usage(lckv: Lckv, name: str) -> None:
    code, _, error = lckv("load", name, "--db", "sqlite:b.db", *KV)

    assert (code, len(error)) == (2, 1)


def test_a_key_that_is_there_with_something_else_ends_a_load_unless_it_is_said(lckv: Lckv) -> None:
    put("sqlite:a.db", [Record("a", b"1"), Record("b", b"1")])
    put("sqlite:b.db", [Record("b", b"2")])
    Path("dump").write_text(lckv("dump", "--db", "sqlite:a.db", *KV).out)
    load = ("load", "dump", "--db", "sqlite:b.db", *KV)
    failed = lckv(*load)

    assert failed.code == 3
    assert "Key 'b' is there already" in failed.error[-1]
    assert lckv(*load, "--on-exists", "skip").error == [
        "lckv: read 2, written 1, replaced 0, same 0, skipped 1, failed 0"
    ]
    assert lckv(*load, "--on-exists", "replace").error == [
        "lckv: read 2, written 0, replaced 1, same 1, skipped 0, failed 0"
    ]
    assert lckv(*load, "--on-exists", "never").code == 2


def test_a_dump_of_what_is_damaged_names_it(lckv: Lckv) -> None:
    put("sqlite:a.db", [Record("a", b"1"), Record("b", b"nonsense")])
    code, out, error = lckv("dump", "--db", "sqlite:a.db", *KV)

    assert code == 5
    assert error[-1] == "lckv: Values that failed: 'b'"
    assert [json.loads(line).get("key") for line in out.splitlines()] == [None, "a", None]


# -- copy and diff ----------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same_and_says_so(lckv: Lckv) -> None:
    put("sqlite:a.db", records(300))
    code, out, error = lckv("copy", "sqlite:a.db", "sqlite:b.db", *KV, "--verify", "--resume", "r")

    assert (code, out) == (0, "")
    assert error == [
        "lckv: read 300, written 300, replaced 0, same 0, skipped 0, failed 0",
        "lckv: verified: 300 the same, 0 not",
    ]
    assert lckv("diff", "sqlite:a.db", "sqlite:b.db", *KV).code == 0
    assert not Path("r").exists()


def test_a_copy_goes_over_http_with_a_token_of_its_own(lckv: Lckv) -> None:
    put("sqlite:a.db", records(300))
    Path("token").write_text("test-token")
    with DataAPIServer() as server:
        over = ("sqlite:a.db", server.url, *KV, "--to-collection", "other", "--to-token", "@token")
        assert lckv("copy", *over).code == 0
        assert lckv("diff", *over).code == 0
        back = (server.url, "sqlite:b.db", "--collection", "other", "--to-collection", "kv", "--token", "@token")
        assert lckv("copy", *back).code == 0

    assert kept("sqlite:b.db") == kept("sqlite:a.db")


def test_differences_are_a_line_each_and_exit_code_1(lckv: Lckv) -> None:
    put("sqlite:a.db", [Record("a", b"1"), Record("b", b"1"), Record("c", b"1")])
    put("sqlite:b.db", [Record("a", b"1"), Record("b", b"2"), Record("d", b"1")])
    code, out, error = lckv("diff", "sqlite:a.db", "sqlite:b.db", *KV)

    assert code == 1
    assert sorted(json.loads(line)["key"] for line in out.splitlines()) == ["b", "c", "d"]
    assert '{"difference": "differ", "key": "b", "in": ["value"]}' in out
    assert error == ["lckv: same 1, differ 1, only left 1, only right 1"]


def test_a_copy_that_was_verified_and_is_not_the_same_has_exit_code_1(lckv: Lckv) -> None:
    put("sqlite:a.db", [Record("a", b"1")])
    put("sqlite:b.db", [Record("a", b"2")])
    code, _, error = lckv("copy", "sqlite:a.db", "sqlite:b.db", *KV, "--on-exists", "skip", "--verify")

    assert code == 1
    assert error[-1] == "lckv: verified: 0 the same, 1 not"


def test_a_dry_run_makes_nothing(lckv: Lckv) -> None:
    put("sqlite:a.db", records(10))
    code, _, error = lckv("copy", "sqlite:a.db", "sqlite:b.db", *KV, "--dry-run", "--resume", "r")

    assert (code, error[-1]) == (0, "lckv: read 10, written 10, replaced 0, same 0, skipped 0, failed 0")
    assert [path.name for path in Path().iterdir() if not path.name.startswith("a.db")] == []


def test_where_there_is_nothing_to_copy_from_nothing_is_made(lckv: Lckv) -> None:
    put("sqlite:a.db", records(1))
    for source, collection in (("sqlite:missing.db", "kv"), ("sqlite:a.db", "missing")):
        code, _, error = lckv("copy", source, "sqlite:b.db", "--collection", collection)
        assert (code, len(error)) == (3, 1)
        assert "missing" in error[0]

    assert not Path("b.db").exists()


def test_a_collection_is_not_copied_onto_itself(lckv: Lckv) -> None:
    put("sqlite:a.db", records(1))
    assert lckv("copy", "sqlite:a.db", "sqlite:./a.db", *KV).code == 2
    assert lckv("copy", "sqlite:a.db", "sqlite:./a.db", *KV, "--to-collection", "other").code == 0
    assert kept("sqlite:a.db", "other") == kept("sqlite:a.db")


def test_a_copy_that_fails_names_where_it_goes_on_in_its_last_line(lckv: Lckv, monkeypatch: pytest.MonkeyPatch) -> None:
    put("sqlite:a.db", [Record(f"{number:05}", b"1") for number in range(2_500)])
    put_many = EngineBackend.put_many

    def fail_late(self: EngineBackend, some: list[Record]) -> None:
        if some[0].key >= "02":
            raise EngineError("the disk is full")
        put_many(self, some)

    copy = ("copy", "sqlite:a.db", "sqlite:b.db", *KV, "--resume", "r")
    with monkeypatch.context() as patch:
        patch.setattr(EngineBackend, "put_many", fail_late)
        failed = lckv(*copy)
    noted = json.loads(Path("r").read_text())
    done = lckv(*copy)

    assert failed == Outcome(
        5,
        "",
        [
            "lckv: read 2,500, written 2,000, replaced 0, same 0, skipped 0, failed 0",
            "lckv: the disk is full. How far it came is in r: repeat the command to go on from there.",
        ],
    )
    assert noted["after"] == "01999"
    assert done == Outcome(0, "", ["lckv: read 500, written 500, replaced 0, same 0, skipped 0, failed 0"])
    assert not Path("r").exists()
    assert kept("sqlite:b.db") == kept("sqlite:a.db")


def test_what_failed_before_a_copy_goes_on_is_exit_code_5(lckv: Lckv) -> None:
    put("sqlite:a.db", [Record(key, b"1") for key in "abc"])
    to = f"sqlite:{Path('b.db').absolute()}, default_keyspace, kv"
    source = to.replace("b.db", "a.db")
    words = {"from": source, "to": to, "prefix": ""}
    noted = {"after": "a", "counts": {"failed": 1}, "failed": {"a": "it is damaged"}}
    Path("r").write_text(json.dumps({"lckv_resume": 1, **words, **noted}))

    assert lckv("copy", "sqlite:a.db", "sqlite:b.db", *KV, "--resume", "r") == Outcome(
        5,
        "",
        [
            "lckv: 'a': it is damaged",
            "lckv: read 2, written 2, replaced 0, same 0, skipped 0, failed 1",
            "lckv: Values that failed: 'a'",
        ],
    )


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://127.0.0.1:1?db=1", "redis://127.0.0.1:1?db=2"),
        ("postgresql:///db?host=/run/a", "postgresql:///db?host=/run/b"),
        ("postgresql://127.0.0.1:1/db?options=-csearch_path=a", "postgresql://127.0.0.1:1/db?options=-csearch_path=b"),
    ],
)
def test_parameters_of_a_url_tell_two_targets_apart(lckv: Lckv, url: str, other: str) -> None:
    put("sqlite:a.db", records(1))
    words = {"from": ", ".join(_name(url)), "to": ", ".join(_name("sqlite:a.db")), "prefix": ""}
    Path("r").write_text(json.dumps({"lckv_resume": 1, **words, "after": "0"}))
    resumed = lckv("copy", other, "sqlite:a.db", *KV, "--resume", "r")
    compared = lckv("diff", url, other, *KV)

    assert resumed.code == 2
    assert "is of another copy" in resumed.error[0]
    assert (compared.code, "are one collection" in compared.error[0]) == (4, False)


def _name(url: str) -> tuple[str, str, str]:
    return parse_url(url).identity, "default_keyspace", "kv"


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_an_identity_has_no_password_and_stays_with_another(scheme: str) -> None:
    one, other = (
        parse_url(f"{scheme}://u:{word}@h/1?user=u&password={word}&options=x").identity for word in ("secret", "new")
    )

    assert one == other
    assert "secret" not in one


# -- ends that come too early -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_copy_that_is_killed_in_the_middle_goes_on(tmp_path: Path, number: int, code: int) -> None:
    some = records(30_000)
    put(f"sqlite:{tmp_path}/a.db", some)
    copy = [*LCKV, "copy", "sqlite:a.db", "sqlite:b.db", *KV, "--resume", "r"]
    slow = subprocess.Popen([*copy, "--max-rate", "1000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert slow.stderr is not None
    while not (tmp_path / "r").exists() and slow.poll() is None:
        os.sched_yield()
    slow.send_signal(number)
    _, error = slow.communicate(timeout=60)
    began = json.loads((tmp_path / "r").read_text())
    done = subprocess.run(copy, cwd=tmp_path, capture_output=True, text=True, check=True)
    (read,) = re.findall(r"read ([\d,]+),", done.stderr)

    assert slow.returncode == code
    assert code == -9 or "How far it came is in r" in error.splitlines()[-1]
    assert began["after"] in {record.key for record in some}
    assert 0 < int(read.replace(",", "")) <= 29_000
    assert kept(f"sqlite:{tmp_path}/b.db") == kept(f"sqlite:{tmp_path}/a.db")
    assert not (tmp_path / "r").exists()


def test_bytes_over_http_are_the_same_as_bytes_where_that_is_said(lckv: Lckv) -> None:
    Path("token").write_text("test-token")
    put("sqlite:a.db", [Record("a", b"\0", Kind.BYTES), Record("b", b"x", Kind.BYTES)])
    with DataAPIServer() as server:
        with KVByteStore("kv", server.url, token=server.token) as store:
            store.mset([("a", b"\0"), ("b", b"y")])
        copy = ("copy", "sqlite:a.db", server.url, *KV, "--to-token", "@token", "--bytes", "--on-exists", "skip")
        copied = lckv(*copy)

    assert copied == Outcome(0, "", ["lckv: read 2, written 0, replaced 0, same 1, skipped 1, failed 0"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of files that are no UTF-8")
def test_a_file_whose_name_is_no_utf8_is_dumped_and_loaded(lckv: Lckv) -> None:
    name = os.fsdecode(b"a\xff.db")
    put(f"sqlite:{name}", records(2))
    dump = lckv("dump", "--db", f"sqlite:{name}", *KV)
    loaded = lckv("load", "-", "--db", "sqlite:b.db", *KV, stdin=dump.out.encode())

    assert (dump.code, loaded.code) == (0, 0)
    assert json.loads(dump.out.splitlines()[0])["source"] == f"sqlite:{Path(name).absolute()}"
    assert kept("sqlite:b.db") == kept(f"sqlite:{name}")


def test_a_dump_that_cannot_be_read_is_told(lckv: Lckv) -> None:
    Path("folder").mkdir()

    assert lckv("load", "folder", "--db", "sqlite:b.db", *KV).code == 2
    if os.path.exists("/proc/self/mem"):
        failed = lckv("load", "/proc/self/mem", "--db", "sqlite:b.db", *KV)
        assert (failed.code, failed.error) == (2, ["lckv: The dump cannot be read: Input/output error."])


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+sqlalchemy", "sqlite+aiosqlite"])
def test_no_command_that_only_reads_makes_a_file(lckv: Lckv, scheme: str) -> None:
    url = f"{scheme}:typo.db"
    for command in ("count", "keys", "get k", "del k", "dump", "clear --yes", "drop --yes", "purge"):
        lckv(*command.split(), "--db", url, *KV)
    for command in ("info", "collections", "check"):
        lckv(command, "--db", url)
    for to in ("sqlite:b.db", "sqlite:c.db"):
        assert lckv("diff", url, to, *KV).code == 3
    if scheme == "sqlite+sqlalchemy":
        for layout in ("sql", "langgraph"):
            assert lckv("import-from", "typo.db", "sqlite:b.db", "--layout", layout, "--name", "n", *KV).code in (2, 3)
    assert not Path("typo.db").exists()

    assert lckv("set", "k", "1", "--db", url, *KV).code == 0
    assert lckv("get", "k", "--db", url, *KV) == Outcome(0, "1\n", [])


@pytest.mark.parametrize(
    "command",
    [
        "copy sqlite:a.db sqlite:b.db",
        "import-from . sqlite:b.db --layout files",
        "pack-embeddings sqlite:a.db sqlite:b.db",
    ],
)
def test_nothing_is_verified_of_a_dry_run(lckv: Lckv, command: str) -> None:
    put("sqlite:a.db", records(1))
    done = lckv(*command.split(), *KV, "--dry-run", "--verify")

    assert (done.code, "exclude each other" in done.error[0]) == (2, True)
    assert not Path("b.db").exists()


def test_a_dry_run_of_set_refuses_what_set_would(lckv: Lckv) -> None:
    Path("large").write_text("x" * 4_000_001)
    where = ("--db", "sqlite:a.db", *KV)
    dry = lckv("set", "k", "@large", "--text", *where, "--dry-run")
    assert not Path("a.db").exists()
    done = lckv("set", "k", "@large", "--text", *where)

    assert dry == done
    assert done.code == 2
    for url in ("sqlite:b.db", "sqlite+sqlalchemy:b.db"):
        assert lckv("set", "k", "1", "--db", url, *KV, "--dry-run").code == 0
    assert not Path("b.db").exists()


def test_a_limit_beyond_what_a_list_can_have_is_wrong_usage(lckv: Lckv) -> None:
    put("sqlite:a.db", records(1))
    for command in ("keys", "items"):
        assert lckv(command, "--db", "sqlite:a.db", *KV, "--limit", str(sys.maxsize)).code == 0
        assert lckv(command, "--db", "sqlite:a.db", *KV, "--limit", str(sys.maxsize + 1)).code == 2


def test_bytes_of_a_store_over_http_come_as_bytes_where_that_is_said(lckv: Lckv) -> None:
    Path("token").write_text("test-token")
    with DataAPIServer() as server:
        backend = parse_url(server.url).open(BackendOptions("kv", "default_keyspace", "test-token"))
        with closing(backend):
            backend.open()
            backend.put_many([Record("a", b"\0", Kind.BYTES)])
        copy = (server.url, "sqlite:b.db", *KV, "--token", "@token", "--bytes")
        assert lckv("copy", *copy).code == 0
        assert lckv("diff", *copy).code == 0

    assert kept("sqlite:b.db") == {"a": (Kind.BYTES, b"\0", None)}


def test_numbers_of_others_keep_their_digits_in_a_dump_and_back(lckv: Lckv, tmp_path: Path) -> None:
    text = b'{"n":1.00000000000000000001,"m":[-1E+400,0.1,1.50]}'
    put("sqlite:a.db", [Record("a", text), Record("b", b'[1.00000000000000000001,"\\ud800"]', Kind.TEXT)])
    code, out, error = lckv("dump", "--db", "sqlite:a.db", *KV)
    assert code == 5
    assert "b" in error[0]
    assert "half of a surrogate pair" in error[0]
    assert '"value":{"n":1.00000000000000000001,"m":[-1E+400,0.1,1.5]}' in out
    (tmp_path / "dump").write_text(out)
    assert lckv("load", "dump", "--db", "sqlite:b.db", *KV).code == 0
    assert lckv("copy", "sqlite:b.db", "sqlite:c.db", *KV, "--verify").code == 0
    with exact_numbers():
        assert kept("sqlite:c.db") == {"a": kept("sqlite:a.db")["a"]}
    put("sqlite:c.db", [Record("a", text.replace(b"0001", b"0002"))])
    assert lckv("diff", "sqlite:b.db", "sqlite:c.db", *KV).code == 1

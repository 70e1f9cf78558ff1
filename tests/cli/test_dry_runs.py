"""``--dry-run`` says what the real run says about its target, and makes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_kv.testing import DataAPIServer
from running import Lckv

NOT_HERE = "nowhere/new.db"
KV = ("--collection", "kv")
WRITE = {
    "set": "set z 1 --db {to}",
    "load": "load dump --db {to}",
    "copy": "copy sqlite:a.db {to}",
    "import-from": "import-from left {to} --layout files",
    "pack-embeddings": "pack-embeddings sqlite:vectors.db {to}",
}
REMOVE = {
    "del": "del b --db {to}",
    "del --prefix": "del --prefix b --yes --db {to}",
    "clear": "clear --yes --db {to}",
    "drop": "drop --yes --db {to}",
    "purge": "purge --db {to}",
}


@pytest.fixture(autouse=True)
def files(lckv: Lckv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands read, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        assert lckv("set", name, "1", "--db", f"sqlite:{name}.db", *KV).code == 0
    assert lckv("set", "v", "[0.5]", "--bytes", "--db", "sqlite:vectors.db", *KV).code == 0
    Path("dump").write_bytes(lckv("dump", "--db", "sqlite:a.db", *KV).out)
    Path("left").mkdir()
    Path("left", "f").write_bytes(b"bytes")


def names() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


def both(lckv: Lckv, command: str, to: str, *options: str) -> tuple[int, str]:
    """Run a command as a dry run, then really, which both fail in one way; return the exit code, and what was said."""
    words = [word.format(to=to) for word in command.split()]
    before = names()
    dry = lckv(*words, *options, "--dry-run")
    assert names() == before
    real = lckv(*words, *options)

    assert (dry.code, dry.out, dry.error.splitlines()[-1]) == (real.code, real.out, real.error.splitlines()[-1])
    assert real.code != 0
    return real.code, real.error


@pytest.mark.parametrize("command", [*WRITE.values(), *REMOVE.values()], ids=[*WRITE, *REMOVE])
def test_a_file_that_is_only_read_is_said(lckv: Lckv, command: str) -> None:
    code, error = both(lckv, command, "sqlite:b.db?mode=ro", *KV)

    assert code == 3
    assert "can only be read: it was opened by a URL with mode=ro" in error


def test_a_file_that_is_only_read_is_not_compacted(lckv: Lckv) -> None:
    assert "can only be read" in both(lckv, "compact --db {to}", "sqlite:b.db?mode=ro")[1]


@pytest.mark.parametrize("command", WRITE.values(), ids=WRITE)
@pytest.mark.parametrize("to", ["sqlite:b.db?mode=ro", "sqlite:new.db?mode=ro"])
def test_what_is_missing_is_not_made_of_a_file_that_is_only_read(lckv: Lckv, command: str, to: str) -> None:
    option = "--to-collection" if command.startswith("pack") else "--collection"
    options = (*KV, option, "other") if command.startswith("pack") else (option, "other")
    if command.startswith("copy"):
        options = (*KV, "--to-collection", "other")

    assert "can only be read" in both(lckv, command, to, *options)[1]


@pytest.mark.parametrize("command", WRITE.values(), ids=WRITE)
@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+sqlalchemy", "sqlite+aiosqlite"])
def test_a_directory_that_is_missing_is_said(lckv: Lckv, command: str, scheme: str) -> None:
    code, error = both(lckv, command, f"{scheme}:{NOT_HERE}", *KV)

    assert code == 3
    assert f"The directory {Path(NOT_HERE).parent.absolute()} does not exist; create it first" in error


@pytest.mark.parametrize("command", REMOVE.values(), ids=REMOVE)
def test_a_file_that_is_missing_is_said(lckv: Lckv, command: str) -> None:
    assert "There is no file" in both(lckv, command, f"sqlite:{NOT_HERE}", *KV)[1]


def test_a_collection_that_is_missing_is_said_as_by_the_real_run(lckv: Lckv) -> None:
    other = ("--db", "sqlite:b.db", "--collection", "other")

    assert lckv("drop", "--yes", *other).code == 0
    assert lckv("drop", "--dry-run", *other) == (0, b"", "lckv: would be removed 0\n")
    assert "There is no collection 'other'" in both(lckv, REMOVE["purge"], "sqlite:b.db", "--collection", "other")[1]


def test_what_would_change_nothing_is_no_error_of_a_file_that_is_only_read(lckv: Lckv) -> None:
    copy = ("copy", "sqlite:a.db", "sqlite:a2.db", *KV)
    assert lckv(*copy).code == 0
    for command in (copy, ("del", "--prefix", "none", "--yes", "--db", "sqlite:a2.db", *KV)):
        only_read = [f"{word}?mode=ro" if word == "sqlite:a2.db" else word for word in command]
        assert lckv(*only_read, "--dry-run").code == lckv(*only_read).code == 0


@pytest.fixture
def server() -> Iterator[DataAPIServer]:
    with DataAPIServer() as server:
        yield server


@pytest.mark.parametrize("name", ["set", "load", "copy"])
def test_a_keyspace_of_a_data_api_that_is_missing_is_said(
    lckv: Lckv, server: DataAPIServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
    keyspace = "--to-keyspace" if name == "copy" else "--keyspace"

    words = [*WRITE[name].format(to=server.url).split(), *KV, keyspace, "nowhere"]
    dry, real = lckv(*words, "--dry-run"), lckv(*words)

    assert dry.code == real.code == 3
    assert "There is no keyspace 'nowhere'" in dry.error
    assert "There is no keyspace 'nowhere'" in real.error

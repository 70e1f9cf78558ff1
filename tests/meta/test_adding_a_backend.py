"""The backend and the place of CONTRIBUTING.md keep the contracts, and are as short as it says; URLs name them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_child import run_pytest

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def blocks(heading: str = "A backend in a hundred lines", language: str = "python") -> list[str]:
    part = CONTRIBUTING.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def test_it_has_a_hundred_lines_at_most() -> None:
    backend, contract = blocks()
    assert 50 < backend.count("\n") <= 120
    assert len([line for line in backend.splitlines() if line.strip()]) <= 100
    assert "class TestJSONFile(BackendContract)" in contract


@pytest.mark.slow
def test_both_contracts_pass_on_it(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("\n".join([*blocks(), *blocks("A place of your own")]))
    done = run_pytest(tmp_path, "test_mine.py")
    assert done.returncode == 0, done.stdout[-3_000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 150
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_the_contract_sees_a_backend_that_serves_what_has_expired(tmp_path: Path) -> None:
    backend, contract = blocks()
    broken = backend.replace("return stored if is_alive(stored, now_ms()) else None", "return stored")
    assert broken != backend
    (tmp_path / "test_mine.py").write_text(broken + contract)
    done = run_pytest(tmp_path, "-k", "expired", "test_mine.py")
    assert done.returncode == 1, done.stdout[-3_000:]


# -- as a package of its own ------------------------------------------------------------------------------------------

BUILD = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "json-files"
version = "1.0"

[tool.hatch.build.targets.wheel]
include = ["json_files.py"]
"""

BY_URL = """
import asyncio, pickle
from langchain_kv import AstraDBStore, KVByteStore, KVStore

with KVStore("kv", "jsonfiles:data", statistics=True) as store:
    store.mset([("a", {"n": 1}), ("b", None)])
    store.namespace("users").mset([("a", 2)])
    assert store.mget(["a", "x", "b"]) == [{"n": 1}, None, None]
    assert store.add([("a", 5), ("c", 3)]) == ["c"]
    store.update("c", lambda old: old + 1)
    asyncio.run(store.amset([("d", 4)]))
    with pickle.loads(pickle.dumps(store)) as copy:
        assert copy.mget(["c", "d"]) == [4, 4]
    print(repr(store))
with KVByteStore("blobs", "JSONFiles:data", keyspace="ks") as store:
    store.mset([("a", b"1")])
with AstraDBStore("kv", api_endpoint="jsonfiles:data") as store:
    assert sorted(store.yield_keys(prefix="a")) == ["a"]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the backend and the place as a distribution; return the directory that has it."""
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("installed")
    (place, _), (entry_point,) = blocks("A place of your own"), blocks("A place of your own", "toml")
    (project / "json_files.py").write_text(blocks()[0] + place)
    (project / "pyproject.toml").write_text(BUILD + entry_point)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(project)]
    subprocess.run([*pip, *alone], check=True, capture_output=True, text=True)
    return target


def run(command: list[str], installed: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASTRA_DB_", "LCKV_"))}
    environment["PYTHONPATH"] = str(installed)
    return subprocess.run(
        [sys.executable, *command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_place_of_an_installed_package_works_by_url(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run(["-c", BY_URL], installed, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"KVStore('default_keyspace.kv', 'jsonfiles:{tmp_path / 'data'}')"
    assert {each.name for each in (tmp_path / "data").iterdir()} == {"default_keyspace.kv.json", "ks.blobs.json"}


@pytest.mark.slow
def test_the_command_takes_its_urls_too_and_shows_its_errors(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    where = ["--db", "jsonfiles:data", "--collection", "kv"]
    assert run(["-m", "langchain_kv", "set", "a", "1", *where], installed, tmp_path).returncode == 0
    assert run(["-m", "langchain_kv", "get", "a", *where], installed, tmp_path).stdout == "1\n"

    wrong = run(["-m", "langchain_kv", "get", "a", "--db", "jsonfiles:none", "--collection", "kv"], installed, tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "'none' is no directory: write jsonfiles:DIRECTORY." in wrong.stderr
    refused = run(["-m", "langchain_kv", "serve", "--db", "jsonfiles:data"], installed, tmp_path)
    assert "lckv serve keeps values itself" in refused.stderr

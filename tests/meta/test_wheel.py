"""The wheel, as a user installs it: outside the tree, with the dependencies it declares and nothing else."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import langchain_kv

PROJECT = Path(__file__).parents[2]
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # environments are made, and filled from a package index


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, PROJECT)
    (path,) = directory.iterdir()
    return path


def run(*command: object, cwd: Path | None = None, code: int = 0) -> str:
    """Run a command; return what it printed, stderr included."""
    arguments = [str(argument) for argument in command]
    pipe = subprocess.PIPE
    done = subprocess.run(arguments, cwd=cwd, stdout=pipe, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == code, done.stdout
    return done.stdout


def new_environment(directory: Path, *install: object) -> Path:
    """Make a virtual environment with a wheel in it; return its folder of programs."""
    run(sys.executable, "-m", "venv", directory)
    run(directory / "bin" / "python", *PIP, "install", *install)
    return directory / "bin"


def first_example() -> str:
    readme = (PROJECT / "README.md").read_text()
    found = re.search(r"^```python\n(from .*?)```", readme, re.DOTALL | re.MULTILINE)
    assert found
    return found.group(1)


def lowest_versions(wheel: Path) -> list[str]:
    """Return a constraint ``name==lowest`` for each requirement that the wheel declares."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    bounds = [
        re.match(r"([\w.-]+)(?:\[\w+\])?(?:<[\w.]+,)?>=([\w.]+)", text)
        for text in metadata.get_all("Requires-Dist") or []
    ]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert wheel.name == f"langchain_kv-{langchain_kv.__version__}-py3-none-any.whl"
    assert "langchain_kv/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} == {
        "langchain_kv",
        f"langchain_kv-{langchain_kv.__version__}.dist-info",
    }
    sources = (PROJECT / "src" / "langchain_kv").rglob("*.py")
    packed = {name for name in names if name.endswith(".py")}
    page = PROJECT / "src" / "langchain_kv" / "explorer" / "static"
    assert {f"langchain_kv/explorer/static/{path.name}" for path in page.iterdir()} <= set(names)
    assert packed == {path.relative_to(PROJECT / "src").as_posix() for path in sources}


def test_every_requirement_has_a_lower_bound(wheel: Path) -> None:
    assert len(lowest_versions(wheel)) >= 8


def test_it_works_with_the_dependencies_it_declares(wheel: Path, tmp_path: Path) -> None:
    programs = new_environment(tmp_path / "venv", wheel)

    run(programs / "python", "-W", "error", "-c", first_example(), cwd=tmp_path)
    where = ["--db", "sqlite:kv.db", "--collection", "kv"]
    run(programs / "lckv", "set", "key", "[1]", *where, cwd=tmp_path)
    assert run(programs / "lckv", "get", "key", *where, cwd=tmp_path) == "[1]\n"
    assert "pip install 'langchain-kv[cli]'" in run(programs / "lckv", "serve", code=2)

    run(programs / "python", *PIP, "install", f"{wheel}[cli]")
    assert "serve" in run(programs / "lckv", "--help")


def test_it_works_with_the_lowest_versions_it_declares(wheel: Path, tmp_path: Path) -> None:
    lowest = tmp_path / "lowest.txt"
    lowest.write_text("\n".join(lowest_versions(wheel)))
    programs = new_environment(tmp_path / "venv", "--constraint", lowest, f"{wheel}[cli]")

    run(programs / "python", "-c", first_example(), cwd=tmp_path)
    assert "serve" in run(programs / "lckv", "--help")
    where = ["--db", "sqlite:kv.db", "--collection", "kv"]
    run(programs / "lckv", "set", "key", "[1]", *where, cwd=tmp_path)
    assert run(programs / "lckv", "get", "key", *where, cwd=tmp_path) == "[1]\n"
    run(programs / "python", "-c", OVER_HTTP, cwd=tmp_path)


OVER_HTTP = """
from langchain_kv import KVStore
from langchain_kv.engines.memory import memory_engine
from langchain_kv.server.http.running import run_in_thread

with run_in_thread(memory_engine("wheel"), "token") as url:
    with KVStore("kv", url, token="token") as store:
        store.mset([(str(n), n) for n in range(250)])
        assert store.mget([str(n) for n in range(250)]) == list(range(250))
        assert len(list(store.yield_keys(prefix="1"))) == 111
        store.mdelete(["1"])
        assert store.mget(["1"]) == [None]
"""

"""Who may import whom: imports point down the picture of ARCHITECTURE.md, and each foreign library has its places."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import langchain_kv

ROOT = Path(langchain_kv.__file__).parent

BASE = {"errors", "limits", "secret", "_version"}
"""What everything may use; these use each other at most."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "secret": {"errors"},
    "_version": set(),
    "sharing": set(),
    "work_queue": BASE,
    "loop_thread": BASE | {"sharing"},
    "json_text": BASE,
    "keys": BASE,
    "kept": BASE,
    "plain": BASE,
    "refusals": BASE | {"keys"},
    "codecs": BASE | {"keys", "kept", "plain", "refusals"},
    "clusters": BASE,
    "callers": set(),
    "options": BASE | {"keys"},
    "targets": BASE | {"clusters", "keys", "options"},
    "engines": BASE | {"engines", "work_queue", "sharing", "clusters", "json_text", "kept"},
    "backends": BASE
    | {"backends", "callers", "engines", "codecs", "keys", "kept", "sharing", "targets", "loop_thread", "work_queue"},
    "server": BASE | {"server", "engines", "json_text"},
    "stores": BASE | {"stores", "backends", "callers", "codecs", "keys", "targets"},
    "__init__": {"stores", "errors", "_version"},
    "__main__": {"cli"},
    "cli": BASE | {"cli", "top", "stores", "backends", "engines", "codecs", "keys", "server", "targets"},
    "testing": BASE | {"testing", "top", "stores", "backends", "engines", "server", "targets"},
}

PLACES: dict[str, set[str]] = {
    "aiohttp": {"backends/dataapi/client"},
    "cassandra": {f"engines/cassandra_{part}" for part in ("cluster", "connect", "driver", "failures")},
    "fcntl": {"engines/file_lock"},
    "langchain_core": {"stores/base", "options"},  # options: its version, for the User-Agent
    "msvcrt": {"engines/file_lock"},
    "sqlite3": {"engines/sqlite", "engines/sqlite_backup", "engines/sqlite_connections", "engines/sqlite_file"},
    "starlette": {"server/app"},
    "typer": {"cli/app", "cli/main"},
    "uvicorn": {"server/connections", "server/running"},
    "uvloop": {"loop_thread", "server/running"},
}
"""The only modules that import each of these."""

FOREIGN_TO = {
    "engines": {"langchain_core", "langchain_classic", "aiohttp", "starlette"},
    "backends": {"langchain_core", "langchain_classic", "starlette"},
    "server": {"langchain_core", "langchain_classic", "aiohttp"},
}


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def imported(module: Path) -> Iterator[str]:
    """Yield the full names of what a module imports, at its top or inside."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def area(module: Path) -> str:
    return module.with_suffix("").parts[0]


def areas_used(module: Path) -> set[str]:
    """Return the areas of the package that a module imports; ``top`` is the package's public face."""
    known = {area(other) for other in modules()}
    used = set()
    for name in imported(module):
        parts = name.split(".")
        if parts[0] == "langchain_kv":
            used.add(parts[1] if len(parts) > 1 and parts[1] in known else "top")
    return used


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_point_down(module: Path) -> None:
    assert area(module) in MAY_IMPORT, f"{module}: say in MAY_IMPORT where it stands"
    assert areas_used(module) <= MAY_IMPORT[area(module)]


def test_the_rule_sees_an_import_that_points_up() -> None:
    assert areas_used(Path("stores/base.py")) - MAY_IMPORT["engines"] == {
        "backends",
        "codecs",
        "keys",
        "stores",
        "targets",
    }


def test_each_foreign_library_is_imported_in_its_places_only() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name in imported(module):
            library = name.partition(".")[0]
            if library in PLACES:
                found[library].add(module.with_suffix("").as_posix())

    assert {library: found[library] - places for library, places in PLACES.items()} == {name: set() for name in PLACES}
    assert found.keys() >= {"aiohttp", "langchain_core", "sqlite3", "starlette", "typer", "uvicorn"}


@pytest.mark.parametrize("name", FOREIGN_TO)
def test_below_the_stores_nothing_knows_langchain(name: str) -> None:
    used = {library.partition(".")[0] for module in modules() if area(module) == name for library in imported(module)}

    assert used & FOREIGN_TO[name] == set()


def test_astrapy_is_never_imported() -> None:
    libraries = {name.partition(".")[0] for module in modules() for name in imported(module)}

    assert not libraries & {"astrapy", "langchain_astradb", "langchain_community", "httpx"}


def test_importing_the_package_loads_nothing_that_is_not_needed_yet() -> None:
    heavy = ["aiohttp", "uvloop", "orjson", "msgspec", "starlette", "uvicorn", "typer", "sqlite3", "langchain_classic"]
    # langchain_core loads some of these itself in some versions: what counts is what comes on top.
    script = (
        "import sys, langchain_kv\nfound = ['langchain_core'] if 'langchain_core' in sys.modules else []\n"
        "import langchain_core.stores\nbefore = set(sys.modules)\nlangchain_kv.KVStore\n"
        f"print(found + [name for name in {heavy!r} if name in set(sys.modules) - before])"
    )
    # Coverage, where it is measured, keeps its counts in SQLite.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.strip() == "[]"


def test_making_a_store_in_memory_needs_no_http() -> None:
    script = (
        "import sys\nfrom langchain_kv import KVStore\nKVStore('kv', 'memory:').mset([('a', 1)])\n"
        "print([name for name in ('aiohttp', 'uvloop', 'starlette', 'sqlite3') if name in sys.modules])"
    )
    # Coverage, where it is measured, keeps its counts in SQLite.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.strip() == "[]"

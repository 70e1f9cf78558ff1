"""Who may import whom: imports point down the picture of ARCHITECTURE.md, and each foreign library has its places."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import langchain_kv

ROOT = Path(langchain_kv.__file__).parent

BASE = {"errors", "limits", "_version"}
"""What everything may use; these use each other at most."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "_version": set(),
    "values": BASE | {"values"},
    "runtime": BASE | {"runtime"},
    "engines": BASE | {"engines", "values", "runtime", "places"},
    "backends": BASE | {"backends", "engines", "values", "runtime", "places"},
    "places": BASE | {"places", "backends", "engines", "values", "runtime"},
    "server": BASE | {"server", "engines", "values"},
    "stores": BASE | {"stores", "backends", "places", "values", "runtime"},
    "__init__": {"stores", "errors", "_version"},
    "__main__": {"cli"},
    "cli": BASE | {"cli", "top", "backends", "engines", "places", "server", "values"},
    "testing": BASE | {"testing", "top", "stores", "backends", "engines", "places", "server", "values", "runtime"},
}

OF_PLACES = {"engines": {"places.clusters"}, "backends": {"places.targets"}}
"""What is known below of places: what a URL says, and not how it is opened."""

PLACES: dict[str, set[str]] = {
    "aiohttp": {"backends/dataapi/client"},
    "cassandra": {f"engines/cassandra/{part}" for part in ("cluster", "connect", "driver", "failures")},
    "cryptography": {"backends/encryption"},
    "fcntl": {"engines/sqlite/file_lock"},
    "langchain_core": {"stores/base", "places/options"},  # options: its version, for the User-Agent
    "msvcrt": {"engines/sqlite/file_lock"},
    "sqlite3": {f"engines/sqlite/{part}" for part in ("backup", "connections", "engine", "file", "schema")},
    "starlette": {"server/http/app"},
    "typer": {"cli/app", "cli/main"},
    "uvicorn": {"server/http/connections", "server/http/running"},
    "uvloop": {"runtime/loop_thread", "server/http/running"},
}
"""The only modules that import each of these."""

FOREIGN_TO = {
    "engines": {"langchain_core", "langchain_classic", "aiohttp", "starlette"},
    "backends": {"langchain_core", "langchain_classic", "starlette"},
    "places": {"langchain_classic", "aiohttp", "starlette"},
    "runtime": {"langchain_core", "langchain_classic", "aiohttp", "starlette", "orjson", "msgspec"},
    "server": {"langchain_core", "langchain_classic", "aiohttp"},
    "values": {"langchain_core", "langchain_classic", "aiohttp", "starlette"},
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
    assert areas_used(Path("stores/base.py")) - MAY_IMPORT["engines"] == {"backends", "stores"}


@pytest.mark.parametrize("name", OF_PLACES)
def test_below_nobody_knows_how_a_place_is_opened(name: str) -> None:
    used = {
        ".".join(full.split(".")[1:3])
        for module in modules()
        if area(module) == name
        for full in imported(module)
        if full.startswith("langchain_kv.places")
    }

    assert used == OF_PLACES[name]


# -- circles ----------------------------------------------------------------------------------------------------------


def graph() -> dict[str, set[str]]:
    """Return which modules each module imports, at its top, inside functions and for type checking."""
    names = {
        module.with_suffix("").as_posix().removesuffix("/__init__").replace("/", "."): module for module in modules()
    }
    names["top"] = names.pop("__init__")
    return {
        name: {other for full in imported(module) if (other := _module(full, names))} for name, module in names.items()
    }


def _module(full: str, names: Iterable[str]) -> str | None:
    """Return the module of the package from which a name comes, None where it is another's."""
    package, _, inner = full.partition(".")
    if package != "langchain_kv":
        return None
    while inner not in names:
        if not inner:
            return "top"
        inner = inner.rpartition(".")[0]
    return inner


def circles(uses: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules of which each imports all others in the end; a module that imports itself, too."""
    found = []
    left = dict(uses)
    while left:
        start = next(iter(left))
        below, above = _reached(start, left), _reached(start, _turned(left))
        group = below & above
        if group:
            found.append(group)
        for name in group | {start}:
            del left[name]
    return found


def _reached(start: str, uses: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for name in uses.get(waiting.pop(), set()) - reached:
            reached.add(name)
            waiting.append(name)
    return reached & uses.keys()


def _turned(uses: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {name: {other for other, used in uses.items() if name in used} for name in uses}


def test_no_two_modules_import_each_other() -> None:
    assert circles(graph()) == []


def test_the_rule_sees_a_circle() -> None:
    uses = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}}
    assert circles(uses) == [{"a", "b", "c"}, {"e"}]
    assert graph()["stores.base"] >= {"backends.base", "places.targets", "errors"}


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
    # orjson and msgspec are what a store's records are made with: a store class brings them, the package does not.
    heavy = ["aiohttp", "uvloop", "starlette", "uvicorn", "typer", "sqlite3", "langchain_classic", "cryptography"]
    # langchain_core loads some of these itself in some versions: what counts is what comes on top.
    script = (
        "import sys, langchain_kv\n"
        "found = [name for name in ('langchain_core', 'orjson', 'msgspec') if name in sys.modules]\n"
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

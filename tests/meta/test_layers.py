"""Who may import whom: imports point down the picture of ARCHITECTURE.md, and each foreign library has its places."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

import langchain_kv
from langchain_kv.places.base import Place
from langchain_kv.places.schemes import SCHEMES, SQL_SCHEMES

ROOT = Path(langchain_kv.__file__).parent

BASE = {"errors", "limits", "_version"}
"""What everything may use; these use each other at most."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "_version": set(),
    "values": BASE | {"values", "runtime"},
    "runtime": BASE | {"runtime"},
    "engines": BASE | {"engines", "values", "runtime"},
    "backends": BASE | {"backends", "engines", "values", "runtime"},
    "places": BASE | {"places", "backends", "engines", "values", "runtime"},
    "server": BASE | {"server", "engines", "values", "runtime"},
    "stores": BASE | {"stores", "documents", "backends", "places", "values", "runtime"},  # documents: upstream's names
    "documents": BASE | {"documents", "stores", "values", "runtime"},
    "llm_cache": BASE | {"stores", "backends", "places", "values"},
    "moving": BASE | {"moving", "backends", "embeddings", "values", "runtime"},
    "langgraph": BASE | {"langgraph", "stores", "backends", "engines", "embeddings", "places", "values", "runtime"},
    "embeddings": BASE | {"embeddings", "stores", "backends", "places", "values", "runtime"},
    "__init__": {
        *("documents", "embeddings", "langgraph", "llm_cache", "stores"),
        *("backends", "errors", "places", "runtime", "_version"),
    },
    "__main__": {"cli"},
    # embeddings: what a packed vector looks like
    "explorer": BASE | {"explorer", "server", "embeddings", "places", "backends", "engines", "values", "runtime"},
    "cli": BASE
    | {"cli", "explorer", "moving", "embeddings", "places", "backends", "engines", "runtime", "server", "values"},
    "testing": BASE | {"testing", "top", "stores", "backends", "engines", "places", "server", "values", "runtime"},
}

PLACES: dict[str, set[str]] = {
    "aiohttp": {"backends/dataapi/bodies", "backends/dataapi/client"},
    "cassandra": {f"engines/cassandra/{part}" for part in ("cluster", "connect", "driver", "failures")}
    | {"stores/cassandra"},  # its types
    "cryptography": {"backends/encryption"},
    "fcntl": {"engines/sqlite/file_lock"},
    "httptools": {"server/http/connections"},
    # options: its version, for the User-Agent
    "langchain_core": {
        "stores/base",
        "stores/mongodb",
        "places/options",
        "documents/store",
        "documents/parents",
        "llm_cache",
    }
    | {f"embeddings/{part}" for part in ("cache", "call", "older")},
    "bson": {f"backends/{part}" for part in ("mongodb_documents", "mongodb_verbs")},
    "langgraph": {f"langgraph/{part}" for part in ("cache", "items", "listing", "meaning", "searching", "store")},
    "msvcrt": {"engines/sqlite/file_lock"},
    "numpy": {"embeddings/cache", "runtime/arrays"},  # cache: its types
    "pymongo": {"backends/mongodb_verbs", "places/mongodb", "stores/mongodb"},  # stores: its types
    "redis": {"backends/redis", "places/redis"},
    "sqlalchemy": {
        "backends/sql",
        "backends/sql_rows",
        "backends/sql_statements",
        "backends/sql_driver",
        "backends/sql_engines",
        "backends/sql_errors",
        "backends/sql_tables",
        "places/sql",
        "stores/sql",
    }
    | {"backends/langgraph_table"},
    "sqlite3": {"engines/sqlite/aside", "engines/sqlite/care"}
    | {f"engines/sqlite/{part}" for part in ("backup", "catalog", "connections", "copies", "engine", "errors")}
    | {f"engines/sqlite/{part}" for part in ("connection", "file", "read_only", "rows", "schema", "waits")},
    "uvloop": {"runtime/loop_thread", "server/http/running"},
}
"""The only modules that import each of these."""

FOREIGN_TO = {
    "engines": {"langchain_core", "langchain_classic", "aiohttp", "httptools"},
    "backends": {"langchain_core", "langchain_classic", "httptools"},
    "places": {"langchain_classic", "aiohttp", "httptools"},
    "runtime": {"langchain_core", "langchain_classic", "aiohttp", "httptools", "orjson", "msgspec"},
    "server": {"langchain_core", "langchain_classic", "aiohttp"},
    "explorer": {"langchain_core", "langchain_classic", "aiohttp"},
    "values": {"langchain_core", "langchain_classic", "aiohttp", "httptools"},
    "cli": {"langchain_core", "langchain_classic", "aiohttp", "typer", "click", "rich"},
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
    assert areas_used(Path("stores/base.py")) - MAY_IMPORT["engines"] == {"backends", "places", "stores"}


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_of_the_table_loads_its_own_module_and_no_engine(scheme: str) -> None:
    home = SCHEMES[scheme].partition(":")[0]
    others = {path.partition(":")[0] for path in SCHEMES.values()} - {home}
    url = {"cassandra": "cassandra://h", "cassandra+bundle": f"cassandra+bundle:{__file__}"}.get(scheme, f"{scheme}:x")
    url = f"{scheme}://h/x" if scheme in SQL_SCHEMES and not scheme.startswith("sqlite") else url
    url = f"{scheme}://h" if scheme in ("redis", "rediss", "valkey") else url
    url = url.replace("mongodb:", "mongodb://").replace("mongodb+srv:", "mongodb+srv://")
    script = f"from langchain_kv.places.schemes import parse_url\nparse_url({url.replace('http:', 'http://')!r})"
    script = script.replace("https:x", "https://x")

    engines = ["langchain_kv.engines.sqlite.engine", "langchain_kv.engines.memory", "langchain_kv.backends.base"]
    assert loaded(script, [home, *others, *engines, "importlib.metadata"]) == [home]


def kinds_asked_for(source: str) -> list[str]:
    """Return where a source compares the ``kind`` of something with a text, as whoever tells places apart by it."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(each, ast.Attribute) and each.attr == "kind" for each in (node.left, *node.comparators))
        and any(isinstance(part, ast.Constant) for each in (node.left, *node.comparators) for part in ast.walk(each))
    ]


@pytest.mark.parametrize("module", modules(), ids=str)
def test_places_are_told_apart_by_their_classes_and_not_by_a_kind(module: Path) -> None:
    assert kinds_asked_for((ROOT / module).read_text()) == []


@pytest.mark.parametrize(
    "source", ["place.kind == 'sqlite'", "self._place.kind not in ('memory', 'sqlite')", "'x' != place.kind"]
)
def test_the_rule_sees_a_kind_that_is_asked_for(source: str) -> None:
    assert kinds_asked_for(source) == [source]


def test_no_place_has_a_kind() -> None:
    places = [place for path in set(SCHEMES.values()) for place in vars(import_module(path.partition(":")[0])).values()]
    classes = {each for each in places if isinstance(each, type) and issubclass(each, Place)}

    assert {each.__name__ for each in classes} >= {"FilePlace", "MemoryPlace", "DataAPIPlace", "BundlePlace"}
    assert [each for each in classes if hasattr(each, "kind") or "kind" in inspect.get_annotations(each)] == []


# -- circles ----------------------------------------------------------------------------------------------------------


def graph() -> dict[str, set[str]]:
    """Return which modules each module imports, at its top, inside functions and for type checking."""
    names = {
        module.with_suffix("").as_posix().removesuffix("/__init__").replace("/", "."): module for module in modules()
    }
    names["top"] = names.pop("__init__")
    found = {
        name: {other for full in imported(module) if (other := _module(full, names))} for name, module in names.items()
    }
    found["places.schemes"] |= {path.partition(":")[0].removeprefix("langchain_kv.") for path in SCHEMES.values()}
    return found


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
    assert graph()["stores.coding"] >= {"backends.base", "values.codecs", "errors"}
    assert graph()["places.schemes"] >= {"places.files", "places.memory", "places.dataapi", "places.clusters"}


def test_each_foreign_library_is_imported_in_its_places_only() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name in imported(module):
            library = name.partition(".")[0]
            if library in PLACES:
                found[library].add(module.with_suffix("").as_posix())

    assert {library: found[library] - places for library, places in PLACES.items()} == {name: set() for name in PLACES}
    assert found.keys() >= {"aiohttp", "httptools", "langchain_core", "sqlite3"}


@pytest.mark.parametrize("name", FOREIGN_TO)
def test_below_the_stores_nothing_knows_langchain(name: str) -> None:
    used = {library.partition(".")[0] for module in modules() if area(module) == name for library in imported(module)}

    assert used & FOREIGN_TO[name] == set()


def calls_of(name: str, source: str) -> int:
    """Return how many calls a source has of what is called ``name``, of whatever module or object."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return sum(getattr(called, "attr", getattr(called, "id", None)) == name for called in calls)


def test_the_hooks_of_forks_are_registered_in_one_place() -> None:
    found = {module.as_posix(): calls_of("register_at_fork", (ROOT / module).read_text()) for module in modules()}

    assert {module: count for module, count in found.items() if count} == {"runtime/forks.py": 1}


def test_astrapy_is_never_imported() -> None:
    libraries = {name.partition(".")[0] for module in modules() for name in imported(module)}

    assert not libraries & {"astrapy", "langchain_astradb", "langchain_community", "httpx"}


HEAVY = ["sqlalchemy", "aiohttp", "uvloop", "orjson", "msgspec", "httptools", "sqlite3", "langchain_classic"]


def loaded(script: str, names: list[str]) -> list[str]:
    """Run a script in a new interpreter; return which of the modules it has loaded that were not there ``before``."""
    found = f"[name for name in {names!r} if name in sys.modules.keys() - before]"
    script = f"import sys\nbefore = set()\n{script}\nprint({found})"
    # Coverage, where it is measured, keeps its counts in SQLite.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    names_found: list[str] = ast.literal_eval(done.stdout.strip().rpartition("\n")[2])
    return names_found


@pytest.mark.parametrize(
    "script",
    [
        "import langchain_kv",
        "from langchain_kv import StoreError, ConfigError, PartialWriteError, __version__",
        "import langchain_kv.testing.plugin",
        "import langchain_kv.cli.main",
    ],
)
def test_neither_the_package_nor_what_pytest_loads_of_it_loads_langchain(script: str) -> None:
    assert loaded(script, ["langchain_core", "langchain_kv.stores", "asyncio", *HEAVY]) == []


def test_the_version_is_printed_without_langchain() -> None:
    script = "from langchain_kv.cli.main import run\nrun(['--version'])"

    assert loaded(script, ["langchain_core", "langchain_kv.backends", "asyncio", "argparse", *HEAVY]) == []


def test_importing_a_store_loads_nothing_that_is_not_needed_yet() -> None:
    # langchain_core loads some of these itself in some versions: what counts is what comes on top.
    names = "AstraDBByteStore, AstraDBStore, KVByteStore, KVStore, SetupMode"
    script = f"import langchain_core.stores\nbefore = set(sys.modules)\nfrom langchain_kv import {names}"

    # A store's records are made with these two.
    assert loaded(script, [*HEAVY, "cryptography"]) == ["orjson", "msgspec"]


def test_making_a_store_in_memory_needs_no_http() -> None:
    script = "from langchain_kv import KVStore\nKVStore('kv', 'memory:').mset([('a', 1)])"

    assert loaded(script, ["aiohttp", "uvloop", "httptools", "sqlite3"]) == []

"""The public face: names, documentation, versions, sizes."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import langchain_kv

PACKAGE = Path(langchain_kv.__file__).parent
PROJECT = PACKAGE.parent.parent

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], "langchain_kv.")
    if not module.name.endswith("__main__")
)


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_what_a_module_lists_as_public_is_there_and_documented(module: ModuleType) -> None:
    assert module.__doc__ or not Path(module.__file__ or "").read_text().strip()
    for name in getattr(module, "__all__", ()):
        item = getattr(module, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert item.__doc__, f"{module.__name__}.{name} has no docstring"


@pytest.mark.parametrize("name", [*langchain_kv.__all__, *langchain_kv._OF_EXTRAS])
def test_public_methods_are_documented(name: str) -> None:
    item = getattr(langchain_kv, name)
    if not inspect.isclass(item):
        return
    for attribute, member in vars(item).items():
        if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(getattr(item, attribute)) or member.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize(
    "name", ["KVStore", "KVByteStore", "AstraDBStore", "AstraDBByteStore", "LangGraphCache", "LangGraphStore", ""]
)
def test_the_examples_in_docstrings_work(name: str) -> None:
    item = getattr(langchain_kv, name) if name else langchain_kv
    names = {} if not name else {name: item}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, name or "langchain_kv", extraglobs=names)
    failed, tried = doctest.DocTestRunner().run(test)

    assert tried
    assert not failed


def test_every_public_name_is_there_at_once_in_every_way_of_asking() -> None:
    script = (
        "import inspect, langchain_kv, pickle, pydoc\n"
        "assert set(langchain_kv.__all__) <= set(dir(langchain_kv))\n"
        "from langchain_kv import *\n"
        "assert {name for name in langchain_kv.__all__ if name not in globals()} == set()\n"
        "assert pickle.loads(pickle.dumps(KVStore)) is langchain_kv.KVStore\n"
        "assert pickle.loads(pickle.dumps(SetupMode.OFF)) is SetupMode.OFF\n"
        "assert 'class AstraDBStore(' in pydoc.render_doc(langchain_kv, renderer=pydoc.plaintext)\n"
        "assert {'KVStore', 'StoreError'} <= dict(inspect.getmembers(langchain_kv)).keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_the_library_of_an_extra_all_other_names_are_there() -> None:
    script = (
        "import inspect, sys\n"
        "sys.modules['langgraph'] = None\n"
        "import langchain_kv\n"
        "from langchain_kv import *\n"
        "inspect.getmembers(langchain_kv)\n"
        "try:\n    from langchain_kv import LangGraphCache\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout.endswith("need langgraph, which is not installed: pip install 'langchain-kv[langgraph]'\n")


def test_a_misspelt_name_is_told_as_that_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'langchain_kv' has no attribute 'KVStroe'"):
        _ = langchain_kv.KVStroe  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'KVStroe'"):
        exec("from langchain_kv import KVStroe")


USES = """\
from langchain_kv import AstraDBStore, KVStore, Place
from pydantic import SecretStr
KVStore('c', 'memory:', setup_mode='ASYNC', token=SecretStr('x'))
AstraDBStore('c', api_endpoint='memory:', setup_mode='OFF', token=lambda: 'x')
AstraDBStore('c', api_endpont='memory:')  # wrong
KVStore('c', 'memory:', setup_mode='LATER')  # wrong
KVStore('c', 'memory:', token=3)  # wrong
def on(place: Place) -> None:
    KVStore('c', place)
    AstraDBStore('c', api_endpoint=place)
KVStore('c', 3)  # wrong
"""


@pytest.mark.slow
def test_a_type_checker_knows_every_public_name_and_no_other_and_sees_wrong_arguments(tmp_path: Path) -> None:
    names = ", ".join([*langchain_kv.__all__, *langchain_kv._OF_EXTRAS])
    programs = {
        "names.py": f"from langchain_kv import {names}\n"
        "from langchain_kv import KVStroe  # wrong\n"
        "reveal_type(KVStore)\n",
        "uses.py": USES,
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}"]
    command += [str(tmp_path / name) for name in programs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT / "src")
    errors = re.findall(r"(\w+\.py):(\d+): error: ", done.stdout)

    wrong = [
        (name, str(number))
        for name, text in programs.items()
        for number, line in enumerate(text.splitlines(), 1)
        if "# wrong" in line
    ]
    assert sorted(errors) == sorted(wrong), done.stdout + done.stderr
    assert '"KVStroe"' in done.stdout
    assert "KVStore" in done.stdout.partition("note: Revealed type is")[2]


def test_the_errors_are_all_public_and_of_one_tree() -> None:
    from langchain_kv import errors

    named = {name for name in errors.__all__ if issubclass(getattr(errors, name), Exception)}
    assert named <= set(langchain_kv.__all__)
    assert all(issubclass(getattr(errors, name), errors.StoreError) for name in named)


def test_the_version_stands_in_one_place() -> None:
    assert version("langchain-kv") == langchain_kv.__version__
    assert "version" not in tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for path in PACKAGE.rglob("*.py"):
        if path.name != "_version.py":
            assert f'"{langchain_kv.__version__}"' not in path.read_text(), path


def test_the_pythons_that_are_claimed_are_those_that_are_tested() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    tested = re.findall(r"^PYTHONS \?= (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)[0].split()

    assert project["requires-python"] == f">={claimed[0]}"
    assert claimed[1:] == tested
    readme = (PROJECT / "README.md").read_text().replace("\n", " ")
    others = f"{', '.join(tested[:-1])} and {tested[-1]}"
    assert f"with Python {claimed[0]} (everything) and with {others} (the fast suite" in readme
    assert re.search(r"^make test-pythons ", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)


def test_the_changelog_has_the_current_version_first() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", text, re.MULTILINE)
    released = [entry for entry in versions if entry[0] != "Unreleased"]

    assert released[0][0] == langchain_kv.__version__
    assert released[0][1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()

    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 75, f"{node.name} does not fit on one screen"


def broken_lines(docstring: str) -> list[str]:
    """Return the lines of a docstring that end early although their sentence goes on: no person breaks them so."""
    lines = [line.rstrip() for line in docstring.splitlines()]
    return [
        line
        for line, after in pairwise(lines)
        if line and len(line) < 80 and re.match(r" *[a-z`]", after) and ":" not in after.split()[0]
        if indent_of(line) == indent_of(after) and "  " not in line.strip() and not line.strip().startswith((">", "."))
    ]


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_line_of_a_docstring_ends_in_the_middle_of_a_sentence(path: Path) -> None:
    found = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    texts = [each.value for each in found if isinstance(each, ast.Constant) and isinstance(each.value, str)]

    assert [line for text in texts for line in broken_lines(text)] == []


def test_the_rule_sees_a_line_that_a_tool_broke() -> None:
    text = "Do it.\n\n    Each request that succeeds starts it anew, so\n    that\n    a large batch ends well.\n"
    assert broken_lines(text) == ["    Each request that succeeds starts it anew, so", "    that"]


def test_there_are_no_utils() -> None:
    names = {path.stem for path in PACKAGE.rglob("*")}

    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_public_name_is_there_and_listed() -> None:
    assert set(langchain_kv.__all__) <= set(dir(langchain_kv))
    for name in langchain_kv.__all__:
        assert getattr(langchain_kv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = langchain_kv.nonsense  # type: ignore[attr-defined]

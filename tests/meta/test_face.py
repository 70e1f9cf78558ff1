"""The public face: names, documentation, versions, sizes."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import tomllib
from importlib.metadata import version
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


@pytest.mark.parametrize("name", langchain_kv.__all__)
def test_public_methods_are_documented(name: str) -> None:
    item = getattr(langchain_kv, name)
    if not inspect.isclass(item):
        return
    for attribute, member in vars(item).items():
        if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(getattr(item, attribute)) or member.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize("name", ["KVStore", "KVByteStore", "AstraDBStore", "AstraDBByteStore", ""])
def test_the_examples_in_docstrings_work(name: str) -> None:
    item = getattr(langchain_kv, name) if name else langchain_kv
    names = {} if not name else {name: item}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, name or "langchain_kv", extraglobs=names)
    failed, tried = doctest.DocTestRunner().run(test)

    assert tried
    assert not failed


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


def test_there_are_no_utils() -> None:
    names = {path.stem for path in PACKAGE.rglob("*")}

    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_public_name_is_there_and_listed() -> None:
    assert set(langchain_kv.__all__) <= set(dir(langchain_kv))
    for name in langchain_kv.__all__:
        assert getattr(langchain_kv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = langchain_kv.nonsense  # type: ignore[attr-defined]

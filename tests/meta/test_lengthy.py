"""The list of what the fast suite leaves out names tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path

from meta.lengthy import lengthy, measured

ROOT = Path(__file__).parent.parent.parent


def test_each_name_is_that_of_a_test() -> None:
    files = {name.partition("::")[0] for name in lengthy()}
    functions = {
        f"{file}::{node.name}"
        for file in files
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    # A class may have its tests from another file.
    named = {f"{name.partition('::')[0]}::{name.rpartition('::')[2]}" for name in lengthy() if name.count("::") == 1}
    assert sorted(named - functions) == []


def test_times_are_read_of_functions_and_of_classes(tmp_path: Path) -> None:
    report = tmp_path / "times.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.unit.test_a" name="test_b[x.y-1]" time="0.5"/>'
        '<testcase classname="tests.unit.test_a" name="test_b[2]" time="1"/>'
        '<testcase classname="tests.unit.test_a.TestC" name="test_d" time="2"/></testsuite></testsuites>'
    )
    assert measured(report) == {
        "tests/unit/test_a.py::test_b": [0.5, 1.0],
        "tests/unit/test_a.py::TestC::test_d": [2.0],
    }

"""The contracts find what is wrong: each fault of broken_backends.py and broken_stores.py fails the test about it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

import contract.broken_stores  # noqa: F401 - which enters its own
from contract.broken_backends import MUST_FAIL
from langchain_kv.testing import BackendContract, StoreContract
from pytest_child import run_pytest

RIGHT = ["TestRightAsBackendContract", "TestRightAsStoreContract"]

pytestmark = pytest.mark.slow

Outcomes = dict[tuple[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Run the tests that must fail, and both contracts on what is right; return, of each class and test, how its runs
    ended, by their parameters."""
    wanted = [f"{file}::{name}::{test}".removesuffix("::") for name, (file, _, test) in MUST_FAIL.items()]
    done = run_pytest(Path(__file__).parents[2], "-rA", "--tb=no", *wanted)
    found: Outcomes = defaultdict(dict)
    for outcome, name, test, parameters in re.findall(
        r"^(PASSED|FAILED|ERROR) \S+::(\w+)::(\w+)(?:\[(.*?)\](?= - |$))?", done.stdout, re.MULTILINE
    ):
        found[name, test][parameters] = outcome
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("name", [name for name in MUST_FAIL if name not in RIGHT])
def test_a_fault_fails_the_test_that_is_about_it(outcomes: Outcomes, name: str) -> None:
    _, modes, test = MUST_FAIL[name]
    ended = outcomes[name, test]
    assert set(ended.values()) <= {"PASSED", "FAILED"}
    failed = {parameters.partition("-")[0] for parameters, outcome in ended.items() if outcome == "FAILED"}
    assert failed in ({""}, set(modes.split()))


@pytest.mark.parametrize("promised", [BackendContract, StoreContract])
def test_every_promise_has_a_fault_that_breaks_it(promised: type) -> None:
    broken = {test for name, (_, _, test) in MUST_FAIL.items() if name.endswith(promised.__name__)}
    assert {name for name in dir(promised) if name.startswith("test_")} - broken == set()


def test_what_is_right_fails_no_test(outcomes: Outcomes) -> None:
    right = [ended for (name, _), runs in outcomes.items() if name in RIGHT for ended in runs.values()]
    assert len(right) > 150
    assert set(right) == {"PASSED"}


def test_options_of_this_run_are_not_the_childs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``PYTEST_ADDOPTS=--maxfail=40`` from outside, with which some faults were never tried."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--maxfail=1")
    (tmp_path / "test_two.py").write_text("def test_a(): raise ValueError\ndef test_b(): raise ValueError\n")
    assert "2 failed" in run_pytest(tmp_path).stdout

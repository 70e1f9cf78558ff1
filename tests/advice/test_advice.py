"""What a message tells the reader to do works: each case provokes a message and does what it says.

A message with an imperative and without a case fails ``test_every_message_that_gives_advice_has_a_case``: add one to
the tables beside this file, or name in elsewhere.py the test that follows it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from advice import (
    of_agents,
    of_arguments,
    of_embeddings,
    of_features,
    of_files,
    of_http,
    of_moving,
    of_the_command,
    of_values,
)
from advice.elsewhere import ELSEWHERE
from advice.sites import IMPERATIVE, ROOT, Site, sites, texts
from advice.world import Case, World
from langchain_kv import StoreError
from langchain_kv.testing import DataAPIServer

CASES: Final = [
    *of_agents.CASES,
    *of_arguments.CASES,
    *of_values.CASES,
    *of_http.CASES,
    *of_files.CASES,
    *of_features.CASES,
    *of_the_command.CASES,
    *of_moving.CASES,
    *of_embeddings.CASES,
]

TESTS: Final = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[DataAPIServer]:
    with DataAPIServer() as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: DataAPIServer) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    server.reset()
    yield World(tmp_path, monkeypatch, server)
    server.heal()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fragment)
def test_what_a_message_tells_to_do_works(case: Case, world: World) -> None:
    try:
        message = case.wrong(world)
    except StoreError as error:
        message = str(error)
    assert isinstance(message, str), "nothing was wrong"
    assert " ".join(case.fragment.split()) in " ".join(message.split())

    case.right(world, message)


def is_about(fragment: str, site: Site) -> bool:
    return fragment in site.text


def is_bound(site: Site) -> bool:
    """Tell whether a case is asked for: of engines' messages only some can be followed here."""
    return not site.where.startswith("engines/") or site.kind == "ConfigError"


def test_every_message_that_gives_advice_has_a_case() -> None:
    fragments = [*(case.fragment for case in CASES), *ELSEWHERE]
    missing = [site for site in sites() if is_bound(site) and not any(is_about(one, site) for one in fragments)]

    assert missing == []


def test_every_case_is_about_a_message_that_is_still_there() -> None:
    known = texts()

    assert [
        one for one in [*(case.fragment for case in CASES), *ELSEWHERE] if not any(one in text for text in known)
    ] == []


@pytest.mark.parametrize("name", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_follow_advice_elsewhere_exist(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((TESTS / path).read_text())

    assert function in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_rule_sees_a_new_message(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("def f(x):\n    raise ConfigError(f'{x} is wrong: give y')\n")
    (site,) = sites(tmp_path)

    assert site == Site("new.py:2", "ConfigError", "\0 is wrong: give y")
    assert not any(is_about(case.fragment, site) for case in CASES)


@pytest.mark.parametrize("text", ["a; try again", "a: give one", "A. Write it", "a, or say so", "a (use b)"])
def test_an_imperative_is_seen(text: str) -> None:
    assert IMPERATIVE.search(text)


@pytest.mark.parametrize("text", ["the name was given", "it is made once", "cannot write or read"])
def test_what_is_no_imperative_is_not_taken_for_one(text: str) -> None:
    assert re.search(r"\w", text)
    assert ROOT.exists()
    assert not IMPERATIVE.search(text)

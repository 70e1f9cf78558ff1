"""The short examples, run as a reader runs them, on a file and over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from places import TOKEN, Place

pytestmark = pytest.mark.slow  # each loads LangChain in a process or two

EXAMPLES = Path(__file__).parents[2] / "examples"

PRINTED = {
    "parent_documents.py": [
        f"found: {'The hill is steep. The sheep are white. The wind goes through the grass.'}",
        "changed: The hill is gone. A quarry is here.",
        "removed; left: ['sea'] with 3 children",
    ],
    "embedding_cache.py": [
        "first: 3 texts and a query: 0 from the cache, 3 from the model",
        "a new process: 4 texts and a query: 3 from the cache, 1 from the model",
    ],
    "llm_cache.py": [
        "first: two; the model was asked 1 times",
        "a new process: two; the model was asked 0 times",
        "after clear: two; the model was asked 2 times",
    ],
    "laptop_rag.py": [
        "first: Answer 'white sheep' by this: The hill is steep. The sheep are white. The wind goes through the grass.",
        "again: Answer 'white sheep' by this: The hill is steep. The sheep are white. The wind goes through the grass.",
        "changed: Answer 'a quarry' by this: The hill is gone. A quarry is here.",
    ],
    "agent_memory.py": ["first: It is noted.", "a new process: pizza", "another user: Nothing is known."],
    "agent_files.py": ["first: Updated file /notes/dishes.md", "a new process: /notes/dishes.md:   1: pizza: good"],
}

THEIRS = {"laptop_rag.py": ["-W", "ignore:Method:DeprecationWarning"]}
"""Warnings of others: langchain-astradb calls what astrapy calls deprecated."""


def run(name: str, *arguments: str) -> list[str]:
    environment = {**os.environ, "ASTRA_DB_APPLICATION_TOKEN": TOKEN}
    command = [sys.executable, "-W", "error", *THEIRS.get(name, []), str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_is_about(name: str) -> None:
    assert run(name) == PRINTED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_does_the_same_over_http(http_place: Place, name: str) -> None:
    assert run(name, http_place.url) == PRINTED[name]

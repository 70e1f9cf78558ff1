"""docs/data-api-coverage.md is what the registry of commands prints, and its remarks are about names that exist."""

from __future__ import annotations

from pathlib import Path

from conformance import coverage_page
from langchain_kv.server.commands.table import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "data-api-coverage.md"


def test_the_page_is_the_one_that_is_printed() -> None:
    assert PAGE.read_text() == coverage_page.page(), "run: make coverage-page"


def test_every_command_and_option_has_a_row() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    names = {row[0].removeprefix("| ") for row in rows}
    for commands in COMMANDS:
        for name, command in commands.items():
            assert {f"`{name}`", *(f"`{option}`" for option in command.options)} <= names


def test_every_remark_is_in_the_page() -> None:
    page = PAGE.read_text()
    for remarks in (
        coverage_page._COMMANDS,
        coverage_page._OPTIONS,
        coverage_page._FILTERS,
        coverage_page._SORTS,
        coverage_page._UPDATES,
    ):
        for name, (grade, text) in remarks.items():
            assert f"| {coverage_page._code(name)} | " in page
            assert grade in ("yes", "differs", "no")
            assert (not text and grade == "yes") or text in page

"""The texts of ``--help``: under 24 lines each, the same on every terminal."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping
from typing import Final

from langchain_kv.cli.parsing import COMMON, Command, Option

__all__ = ["command_help", "overview"]

COLUMNS: Final = 79

_INTRODUCTION: Final = (
    "Keep values by key in a file, in Astra DB or any Data API, in Apache Cassandra, SQL databases, Redis or MongoDB:"
    " every target by its URL, LCKV_URL of the environment where --db is not given."
)
_EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 missing or different, 2 wrong usage, 3 refused, 4 not reached, 5 partly done, 130"
    " interrupted. An empty result is no error."
)


def overview(families: Mapping[str, Mapping[str, tuple[str, str]]]) -> str:
    """Return what ``lckv --help`` prints.

    Args:
        families: the commands by what they are about: see ``dispatch.FAMILIES``.
    """
    lines = ["Usage: lckv COMMAND [OPTIONS]    (lckv COMMAND --help says more; lckv --version)", ""]
    lines += textwrap.wrap(_INTRODUCTION, COLUMNS)
    lines.append("")
    for title, family in families.items():
        text = ", ".join(f"{name} ({told})" for name, (_, told) in family.items())
        lines += textwrap.wrap(f"{title}: {text}", COLUMNS, subsequent_indent="  ")
    lines += ["", *textwrap.wrap(_EXIT_CODES, COLUMNS)]
    lines += ["", "Example: lckv set greeting '\"hello\"' --db sqlite:kv.db --collection notes"]
    return "\n".join(lines) + "\n"


def command_help(command: Command) -> str:
    """Return what ``lckv COMMAND --help`` prints."""
    words = [f"{each.metavar}..." if each.many else each.metavar for each in command.arguments]
    shown = [word if each.required else f"[{word}]" for word, each in zip(words, command.arguments, strict=True)]
    options = (*command.options, *COMMON)
    needed = [f"{each.name} {each.metavar}" for each in command.options if each.required]
    usage = " ".join(["Usage: lckv", command.name, *shown, *needed, "[OPTIONS]"])
    lines = [*textwrap.wrap(usage, COLUMNS, subsequent_indent="  "), ""]
    for paragraph in inspect.cleandoc(command.run.__doc__ or "").split("\n\n"):
        lines += textwrap.wrap(" ".join(paragraph.replace("``", "").split()), COLUMNS)
    lines += ["", *_table(options), "", f"Example: {command.example}"]
    return "\n".join(lines) + "\n"


def _table(options: Iterable[Option]) -> list[str]:
    rows = [(f"{_short(each)}{each.name} {each.metavar}".rstrip(), _told(each)) for each in options]
    width = max(len(name) for name, _ in rows)
    lines: list[str] = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, COLUMNS - width - 4) or [""]
        lines.append(f"  {name:{width}}  {wrapped[0]}")
        lines += [" " * (width + 4) + line for line in wrapped[1:]]
    return lines


def _short(option: Option) -> str:
    return f"-{option.short}, " if option.short else ""


def _told(option: Option) -> str:
    return option.help if option.default is None else f"{option.help} [{option.default}]"

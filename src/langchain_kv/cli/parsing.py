"""What a command takes, and the words of a command line read by it. Nothing is loaded for this but the errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from langchain_kv.errors import ConfigError

__all__ = ["Argument", "Arguments", "Command", "Option", "number", "parse", "seconds"]

Arguments = SimpleNamespace
"""What was given, by name: ``--dry-run`` as ``dry_run``, KEY as ``key`` (a list where there may be several)."""


class Option(NamedTuple):
    """An option, or a flag.

    Attributes:
        name: such as ``--limit``.
        help: what it says, in one line.
        metavar: stands for its value; empty makes a flag.
        short: another name, of one letter: ``0`` for ``-0``.
        convert: makes its value of the text; raises ValueError, whose text says what is taken.
        default: where it is not given.
        required: whether it must be given.
        repeated: whether it may be given several times; its value is a list then.
        variables: of the environment, the first that is not empty stands for it.
    """

    name: str
    help: str
    metavar: str = ""
    short: str = ""
    convert: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    repeated: bool = False
    variables: tuple[str, ...] = ()


class Argument(NamedTuple):
    """What stands without an option's name.

    Attributes:
        metavar: stands for it in the help; its first word in lower case is its name.
        many: whether there may be several.
        required: whether there must be one.
    """

    metavar: str
    many: bool = False
    required: bool = True

    @property
    def name(self) -> str:
        """Its name in ``Arguments``."""
        return self.metavar.partition("|")[0].lower()


class Command(NamedTuple):
    """A command.

    Attributes:
        name: the word after ``lckv``.
        run: carries it out, with what was given and an ``output.Output``; returns the exit code, None for 0. Its
            docstring is the help: a line, then what else is to be said.
        example: one line for a shell.
        arguments: what it takes without names, in order.
        options: what it takes by names, besides COMMON.
    """

    name: str
    run: Callable[[Arguments, Any], int | None]
    example: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()


COMMON: Final = (
    Option("--json", "A JSON text a line; errors and counts as JSON, too."),
    Option("--quiet", "No progress and no counts.", short="q"),
    Option("--help", "Show this and leave.", short="h"),
)
"""What every command takes."""


def number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what makes a whole number within bounds of a text."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise ValueError(f"a whole number from {least}" + ("" if most is None else f" to {most}"))
        return value

    return convert


def seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("a number of seconds above 0")
    return value


def parse(command: Command, words: Sequence[str]) -> Arguments:
    """Return what the words after a command's name say. Options may stand anywhere; after ``--`` there are none.

    Raises:
        ConfigError: they do not fit the command.
    """
    try:
        given, plain = _sorted_out((*command.options, *COMMON), words)
        if "--help" in given:
            return SimpleNamespace(help=True)
        found = {_attribute(each): _value(each, given.get(each.name)) for each in (*command.options, *COMMON)}
        found.update(_named(command.arguments, plain))
    except ConfigError as error:
        raise ConfigError(f"{error} See lckv {command.name} --help.") from None
    return SimpleNamespace(**found)


def _sorted_out(options: Sequence[Option], words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values of each option that was given, by its name, and the words that belong to none."""
    given: dict[str, list[str]] = {}
    plain: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            return given, plain + left
        if word[:1] != "-" or word == "-":
            plain.append(word)
            continue
        name, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        option = _option(options, name)
        if not option.metavar and has_value:
            raise ConfigError(f"{option.name} takes no value.")
        if option.metavar and not has_value:
            if not left:
                raise ConfigError(f"{option.name} needs a value: {option.name} {option.metavar}.")
            value = left.pop(0)
        given.setdefault(option.name, []).append(value)
    return given, plain


def _option(options: Sequence[Option], name: str) -> Option:
    found = [each for each in options if name in (each.name, f"-{each.short}")]
    if not found and name.startswith("--"):
        found = [each for each in options if each.name.startswith(name)]
    if not found:
        raise ConfigError(f"There is no option {name} (before a word that begins with - write --).")
    if len(found) > 1:
        raise ConfigError(f"{name} may be {' or '.join(each.name for each in found)}: write it out.")
    return found[0]


def _attribute(option: Option) -> str:
    return option.name[2:].replace("-", "_")


def _value(option: Option, given: list[str] | None) -> Any:
    """Return what an option says: its default, the environment's value or what was given, converted."""
    if not option.metavar:
        return given is not None
    texts = given or [text for name in option.variables if (text := os.environ.get(name, "").strip())][:1]
    if not texts:
        if option.required:
            named = f" or set {option.variables[0]}" if option.variables else ""
            raise ConfigError(f"{option.name} is missing: give {option.name} {option.metavar}{named}.")
        return [] if option.repeated else option.default
    try:
        values = [option.convert(text) for text in texts]
    except ValueError as error:
        raise ConfigError(f"{option.name} takes {error}.") from None
    return values if option.repeated else values[-1]


def _named(arguments: Sequence[Argument], plain: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left = list(plain)
    for each in arguments:
        if not left and each.required:
            raise ConfigError(f"{each.metavar} is missing.")
        found[each.name] = left if each.many else left[0] if left else None
        left = [] if each.many else left[1:]
    if left:
        raise ConfigError(f"{left[0]!r:.80} is one word too many.")
    return found

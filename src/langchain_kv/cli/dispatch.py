"""From the first word of a command line to its command, of which only the module is loaded that has it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final

from langchain_kv.cli.parsing import Command, parse
from langchain_kv.errors import ConfigError

__all__ = ["FAMILIES", "NAMES", "command_of", "dispatch"]

FAMILIES: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Values": {
        "get": ("values", "print values"),
        "set": ("values", "store one"),
        "del": ("values", "remove keys"),
        "keys": ("listing", "list them"),
        "items": ("listing", "with values"),
        "count": ("listing", "how many"),
    },
    "Collections": {
        "collections": ("collections", "names"),
        "namespaces": ("collections", "labels"),
        "clear": ("collections", "empty one"),
        "drop": ("collections", "remove one"),
        "purge": ("collections", "remove what has expired"),
    },
    "Moving": {
        "copy": ("copying", "from one target to another"),
        "diff": ("copying", "compare two"),
        "dump": ("dumping", "write all as lines"),
        "load": ("dumping", "take them back"),
        "import-from": ("importing", "what other classes left"),
        "pack-embeddings": ("importing", "vectors of LangChain's cache"),
    },
    "Care": {
        "info": ("care", "versions, counts, sizes"),
        "check": ("care", "look for damage"),
        "compact": ("care", "give space back"),
        "backup": ("files", "copy a file of values"),
        "restore": ("files", "put it back"),
    },
    "Serve": {
        "serve": ("serve", "a file as a Data API"),
        "explore": ("explore", "any target in the browser"),
        "completion": ("completion", "for bash, zsh, fish"),
    },
}
"""The commands, by what they are about, in the order in which they are shown: of each the module of ``cli.commands``
that has it in its ``COMMANDS``, and what ``lckv --help`` says of it."""

NAMES: Final = tuple(name for family in FAMILIES.values() for name in family)
"""The names of all commands."""


def command_of(name: str) -> Command:
    """Return a command.

    Raises:
        ConfigError: there is none of this name.
    """
    module = next((family[name][0] for family in FAMILIES.values() if name in family), None)
    if module is None:
        if name.startswith("-"):
            raise ConfigError(f"{name} stands before a command: options follow it. See lckv --help.")
        from difflib import get_close_matches

        meant = get_close_matches(name, NAMES, 1)
        hint = f" Did you mean {meant[0]}?" if meant else ""
        raise ConfigError(f"There is no command {name!r:.80}.{hint} See lckv --help.")
    commands = import_module(f"langchain_kv.cli.commands.{module}").COMMANDS
    found: Command = next(each for each in commands if each.name == name)
    return found


def dispatch(words: Sequence[str]) -> int:
    """Carry out what a command line says; return the exit code."""
    from langchain_kv.cli.output import Output

    first = words[0] if words else "--help"
    if first in ("--help", "-h"):
        from langchain_kv.cli.help import overview

        Output().write(overview(FAMILIES))
        return 0
    if first == "--version":
        from langchain_kv._version import __version__

        Output().write(f"lckv {__version__}\n")
        return 0
    command = command_of(first)
    arguments = parse(command, words[1:])
    if arguments.help:
        from langchain_kv.cli.help import command_help

        Output().write(command_help(command))
        return 0
    from langchain_kv.cli.logged import noting_what_is_logged

    output = Output(as_json=arguments.json, quiet=arguments.quiet)
    with noting_what_is_logged(output):
        return command.run(arguments, output) or 0

"""``lckv completion``: scripts with all commands and options in them, so that no key starts a program."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from langchain_kv.cli.dispatch import FAMILIES, NAMES, command_of
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import COMMON, Argument, Arguments, Command, Option
from langchain_kv.errors import ConfigError

__all__ = ["COMMANDS"]


def _completion(arguments: Arguments, output: Output) -> None:
    """Print what completes lckv's commands and options in a shell: bash, zsh or fish.

    bash: add the example to ~/.bashrc. zsh: the same in ~/.zshrc, after compinit. fish: write it to
    ~/.config/fish/completions/lckv.fish.
    """
    if arguments.shell not in _SCRIPTS:
        raise ConfigError(f"{arguments.shell!r:.40} is not known: give bash, zsh or fish. See lckv completion --help.")
    output.write("\n".join(_SCRIPTS[arguments.shell]()) + "\n")


def _options(name: str) -> tuple[Option, ...]:
    return (*command_of(name).options, *COMMON)


def _told() -> Iterator[tuple[str, str]]:
    for family in FAMILIES.values():
        yield from ((name, text) for name, (_, text) in family.items())


def _bash() -> Iterator[str]:
    yield "_lckv() {"
    yield '    local word="${COMP_WORDS[COMP_CWORD]}" options=""'
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        COMPREPLY=($(compgen -W "{" ".join(NAMES)} --help --version" -- "$word"))'
    yield "        return"
    yield "    fi"
    yield '    case "${COMP_WORDS[1]}" in'
    for name in NAMES:
        yield f'        {name}) options="{" ".join(option.name for option in _options(name))}" ;;'
    yield "    esac"
    yield '    case "$word" in'
    yield '        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;'
    yield '        @*) COMPREPLY=($(compgen -f -P @ -- "${word#@}")) ;;'
    yield '        *) COMPREPLY=($(compgen -f -- "$word")) ;;'
    yield "    esac"
    yield "}"
    yield "complete -o filenames -F _lckv lckv"


def _zsh() -> Iterator[str]:
    yield "#compdef lckv"
    yield "_lckv() {"
    yield "    local -a commands"
    yield f"    commands=({' '.join(quote(f'{name}:{text}') for name, text in _told())})"
    yield "    if (( CURRENT == 2 )); then _describe command commands; return; fi"
    yield "    local command=${words[2]}"
    yield "    shift words; (( CURRENT-- ))"
    yield "    case $command in"
    for name in NAMES:
        specs = " ".join(quote(_zsh_option(option)) for option in _options(name))
        yield f"        {name}) _arguments -S {specs} '*:file:_files' ;;"
    yield "    esac"
    yield "}"
    yield 'if [ "$funcstack[1]" = _lckv ]; then _lckv "$@"; else compdef _lckv lckv; fi'


def _zsh_option(option: Option) -> str:
    text = option.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
    value = f":{option.metavar}:{'_files' if 'FILE' in option.metavar else ''}" if option.metavar else ""
    return f"{'*' if option.repeated else ''}{option.name}[{text}]{value}"


def _fish() -> Iterator[str]:
    for name, text in _told():
        yield f"complete -c lckv -f -n __fish_use_subcommand -a {name} -d {quote(text)}"
    for name in NAMES:
        for option in _options(name):
            short = f" -s {option.short}" if option.short else ""
            value = " -r" if option.metavar else ""
            seen = quote(f"__fish_seen_subcommand_from {name}")
            yield f"complete -c lckv -n {seen} -l {option.name[2:]}{short}{value} -d {quote(option.help)}"


_SCRIPTS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}

COMMANDS: Final = (Command("completion", _completion, 'eval "$(lckv completion bash)"', (Argument("SHELL"),)),)

"""``lckv backup`` and ``restore``."""

from __future__ import annotations

from typing import Final

from langchain_kv.cli.options import DRY_RUN
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Argument, Arguments, Command, Option
from langchain_kv.cli.stopping import cleaning_up_when_stopped
from langchain_kv.errors import ConfigError
from langchain_kv.places.backups import back_up, look_before_backup, look_before_restore
from langchain_kv.places.backups import restore as put_back
from langchain_kv.places.schemes import parse_url

__all__ = ["COMMANDS"]


def _backup(arguments: Arguments, output: Output) -> None:
    """Copy a file of values, as of one moment, while others write to it.

    DB is sqlite:PATH, FILE the path of the copy, which appears when it is complete and was checked; it is a store's
    file itself. With an error, or when the command is told to stop, nothing is left. lckv restore puts it back.
    """
    _require_path(arguments.file)
    place = parse_url(arguments.db)
    if arguments.dry_run:
        look_before_backup(place, arguments.file, replace=arguments.replace)
        output.note(f"would copy {place.shown} to {arguments.file}")
        return
    with cleaning_up_when_stopped():
        back_up(place, arguments.file, replace=arguments.replace)


def _restore(arguments: Arguments, output: Output) -> None:
    """Put a backup in the place of a file of values, while others use it.

    DB is sqlite:PATH and need not exist. The backup is copied and checked first; then it takes the file's place in one
    moment, and what the file was goes. Programs that have it open, lckv serve among them, go on with the backup. With
    an error all stays as it was.
    """
    _require_path(arguments.file)
    place = parse_url(arguments.db)
    if arguments.dry_run:
        look_before_restore(arguments.file, place, replace=arguments.replace)
        output.note(f"would put a copy of {arguments.file} in the place of {place.shown}")
        return
    with cleaning_up_when_stopped():
        put_back(arguments.file, place, replace=arguments.replace)


def _require_path(file: str) -> None:
    if file.startswith("sqlite:"):
        raise ConfigError(f"FILE is a path, not a URL: write {file.removeprefix('sqlite:')}.")


COMMANDS: Final = (
    Command(
        "backup",
        _backup,
        "lckv backup sqlite:kv.db copy.db",
        (Argument("DB"), Argument("FILE")),
        (Option("--replace", "Take the place of a file of that name."), DRY_RUN),
    ),
    Command(
        "restore",
        _restore,
        "lckv restore copy.db sqlite:kv.db",
        (Argument("FILE"), Argument("DB")),
        (Option("--replace", "Also where DB is not recognised as a file of values."), DRY_RUN),
    ),
)

"""From a target to a copy of it, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_kv.errors import ConfigError
from langchain_kv.sharing import importing
from langchain_kv.targets import Target

if TYPE_CHECKING:
    from langchain_kv.engines.sqlite import SQLiteEngine

__all__ = ["back_up", "restore"]


def back_up(target: Target, file: str, *, replace: bool = False) -> None:
    """Copy the database of a ``sqlite:`` target, as of one moment, while others write to it.

    Args:
        target: the database.
        file: the path of the copy; a ``sqlite:`` target itself from then on.
        replace: whether to take the place of a file of that name.

    Raises:
        ConfigError: the target is no file.
        EngineError: the copy could not be made; nothing is left behind.
    """
    if target.kind != "sqlite":
        raise ConfigError(f"Only a file can be backed up: give sqlite:PATH, not the URL of a {target.kind} target.")
    engine = _engine(target.location, read_only=target.read_only)
    try:
        engine.backup(file, replace=replace)
    finally:
        engine.close()


def restore(file: str, target: Target, *, replace: bool = False) -> None:
    """Put a copy of a backup in the place of a ``sqlite:`` target's database, while others use it.

    Args:
        file: the path of the backup, which stays as it is.
        target: the database; need not exist.
        replace: whether to take also the place of what is not recognised as a database of this package.

    Raises:
        ConfigError: the target is no file.
        EngineError: it could not be done; all is as it was.
    """
    if target.kind != "sqlite":
        raise ConfigError(f"Only a file can be restored: give sqlite:PATH, not the URL of a {target.kind} target.")
    engine = _engine(file)
    try:
        engine.restore_to(target.location, replace=replace)
    finally:
        engine.close()


def _engine(path: str, *, read_only: bool = False) -> SQLiteEngine:
    with importing.lock:
        from langchain_kv.engines.sqlite import SQLiteEngine

    return SQLiteEngine(path, read_only=read_only)

"""From a target to a copy of it."""

from __future__ import annotations

from langchain_kv.errors import ConfigError
from langchain_kv.places.targets import Target

__all__ = ["back_up"]


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
    from langchain_kv.engines.sqlite.engine import SQLiteEngine

    engine = SQLiteEngine(target.location)
    try:
        engine.backup(file, replace=replace)
    finally:
        engine.close()

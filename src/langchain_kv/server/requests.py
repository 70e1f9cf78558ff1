"""One command as a handler sees it: its fields, checked by type, and the collection it is about."""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_kv.engines.base import CollectionName, Engine, Settings
from langchain_kv.errors import DataAPIError
from langchain_kv.server.settings import Indexing

__all__ = ["Collection", "Request", "flag", "invalid", "mismatch", "no_options", "options"]


class Collection(NamedTuple):
    """A collection that exists, as it was when the command began."""

    name: CollectionName
    settings: Settings
    indexing: Indexing


class Request(NamedTuple):
    """A command on its way.

    Attributes:
        engine: where documents are kept; called through its bridge only.
        command: the name of the command.
        path: the keyspace and the collection of the URL, as far as it names them.
        fields: the fields of the command, none of which its registration does not know.
    """

    engine: Engine
    command: str
    path: tuple[str, ...]
    fields: dict[str, Any]

    @property
    def keyspace(self) -> str:
        """The keyspace of the URL."""
        return self.path[0]

    async def collection(self) -> Collection:
        """Look the collection up.

        Raises:
            UnknownKeyspaceError, UnknownCollectionError: there is none.
        """
        name = CollectionName(*self.path)
        settings = await self.engine.bridge.read(self.engine.settings, name)
        return Collection(name, settings, Indexing(settings))


def options(request: Request, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the field ``options``, empty where it is absent or null.

    Raises:
        DataAPIError: COMMAND_FIELD_UNKNOWN for an option that is not ``known``.
    """
    given = request.fields.get("options")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise mismatch(f"The field 'options' of {request.command} needs an object.")
    for name in given:
        if name not in known:
            raise DataAPIError.of(
                "COMMAND_FIELD_UNKNOWN",
                f"{request.command} has no option {name[:100]!r}; there are {', '.join(known) or 'none'}.",
            )
    return given


def no_options(request: Request) -> None:
    """Refuse any option.

    Raises:
        DataAPIError: COMMAND_ACCEPTS_NO_OPTIONS.
    """
    if request.fields.get("options"):
        raise DataAPIError.of(
            "COMMAND_ACCEPTS_NO_OPTIONS", f"{request.command} accepts no options: leave out the field 'options'."
        )


def flag(given: dict[str, Any], name: str) -> bool:
    """Return a true-or-false option; absent or null is false."""
    value = given.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise mismatch(f"The option '{name}' is either true or false.")


def invalid(message: str) -> DataAPIError:
    """Return the error of a field with a value that it cannot have."""
    return DataAPIError.of("COMMAND_FIELD_VALUE_INVALID", message)


def mismatch(message: str) -> DataAPIError:
    """Return the error of a request, or a part of it, that has the wrong JSON type."""
    return DataAPIError.of("REQUEST_STRUCTURE_MISMATCH", message)

"""The field ``update``: read, checked for conflicts, and carried out on a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from langchain_kv.errors import DataAPIError
from langchain_kv.server.commands.requests import Collection, Request, invalid
from langchain_kv.server.documents.documents import shred
from langchain_kv.server.query.filters import Filter
from langchain_kv.server.update.changing import Changed
from langchain_kv.server.update.locating import Draft, copied
from langchain_kv.server.update.operators import OPERATORS, Action, update_error
from langchain_kv.values.json_text import read

__all__ = ["Update", "check_update", "parse_update"]

_NOT_BUILT: Final = "$pullAll"
"""The Data API knows this operator, refuses it, and does so after what is wrong with the others."""


def check_update(request: Request) -> dict[str, dict[str, Any]]:
    """Return the arguments of each operator of the field ``update``, which is checked in its form only.

    Raises:
        DataAPIError: COMMAND_FIELD_VALUE_INVALID, UNSUPPORTED_UPDATE_DATA_TYPE or UNSUPPORTED_UPDATE_OPERATION.
    """
    definition = request.fields.get("update")
    if definition is None:
        raise invalid(f"{request.command} needs the field 'update', an object of operators such as $set.")
    if not isinstance(definition, dict):
        raise _bad_type("an update is an object of operators, such as $set")
    for operator, arguments in definition.items():
        if operator not in OPERATORS and operator != _NOT_BUILT:
            raise update_error("", f"there is no operator {operator[:100]!r}; there are {', '.join(OPERATORS)}")
        if not isinstance(arguments, dict):
            raise _bad_type(f"{operator} needs an object of paths")
    return definition


def _bad_type(reason: str) -> DataAPIError:
    return DataAPIError.of("UNSUPPORTED_UPDATE_DATA_TYPE", f"The update cannot be carried out: {reason}.")


def parse_update(definition: dict[str, dict[str, Any]]) -> Update:
    """Parse the operators' arguments.

    Raises:
        DataAPIError: one of the UPDATE codes.
    """
    actions: list[Action] = []
    for name, operator in OPERATORS.items():
        # They are read in the order of the request, which decides what error is told, and carried out in that of paths.
        read_actions = [operator(name, path, argument) for path, argument in definition.get(name, {}).items()]
        actions += sorted(read_actions, key=lambda action: action.path)
    if _NOT_BUILT in definition:
        raise update_error("", f"there is no operator {_NOT_BUILT!r}; there are {', '.join(OPERATORS)}")
    _check_conflicts(actions)
    return Update(actions)


def _check_conflicts(actions: Iterable[Action]) -> None:
    """Refuse two actions at one path, or at a path and a part of it: sorted, they stand side by side. One that
    moves a value is at two paths."""
    places = [(names, action) for action in actions for names in action.places]
    for (upper, one), (lower, other) in pairwise(sorted(places, key=lambda place: place[0])):
        if lower[: len(upper)] == upper:
            raise update_error(
                "PARAM",
                f"{one.operator} of {one.path[:100]!r} and {other.operator} of {other.path[:100]!r} would change the"
                " same part of the document: keep one of them, or send two commands",
            )


class Update(NamedTuple):
    """An update that was checked.

    Attributes:
        actions: what it does, in order.
    """

    actions: Sequence[Action]

    def of(self, body: bytes, collection: Collection) -> Changed:
        """Return what the update makes of a stored document.

        Raises:
            DataAPIError: one of the UPDATE codes, or of the codes of a bad document.
        """
        draft = Draft(read(body))
        if not self._carry_out(draft, is_new=False):
            return Changed(body, body)
        shredded = shred(draft.document, collection.settings, collection.indexing)
        return Changed(body, shredded.body, is_modified=True, new_id=shredded.id)

    def of_nothing(self, condition: Filter, collection: Collection) -> Changed:
        """Return the document that an upsert inserts: what the filter says it equals, updated.

        Raises:
            DataAPIError: as ``of``.
        """
        draft = Draft({})
        if len(condition.ids_json) == 1:
            draft.document["_id"] = condition.ids_json[0]
        for names, value in condition.equalities:
            draft.find_or_make(names).put(copied(value))  # the filter's own is not the document's to change
        self._carry_out(draft, is_new=True)
        shredded = shred(draft.document, collection.settings, collection.indexing)
        return Changed(None, shredded.body, new_id=shredded.id, upserted=(shredded.id_json,))

    def _carry_out(self, draft: Draft, *, is_new: bool) -> bool:
        """Carry out the actions; return whether the Data API would call the document modified."""
        modified = [action.change(draft) for action in self.actions if is_new or action.operator != "$setOnInsert"]
        return any(modified)

"""The field ``update``: read, checked for conflicts, and carried out on a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple

from langchain_kv.errors import DataAPIError
from langchain_kv.json_text import read
from langchain_kv.server.changing import Outcome
from langchain_kv.server.documents import shred
from langchain_kv.server.filters import Filter
from langchain_kv.server.locating import find_or_make_place
from langchain_kv.server.requests import Collection, Request, invalid
from langchain_kv.server.update_operators import OPERATORS, Action, update_error

__all__ = ["Update", "check_update", "read_update"]


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
        if operator not in OPERATORS:
            raise update_error("", f"there is no operator {operator[:100]!r}; there are {', '.join(OPERATORS)}")
        if not isinstance(arguments, dict):
            raise _bad_type(f"{operator} needs an object of paths")
    return definition


def _bad_type(reason: str) -> DataAPIError:
    return DataAPIError.of("UNSUPPORTED_UPDATE_DATA_TYPE", f"The update cannot be carried out: {reason}.")


def read_update(definition: dict[str, dict[str, Any]]) -> Update:
    """Read the operators' arguments.

    Raises:
        DataAPIError: one of the UPDATE codes.
    """
    actions = [
        operator(name, path, argument)
        for name, operator in OPERATORS.items()
        for path, argument in sorted(definition.get(name, {}).items(), key=lambda item: item[0])
    ]
    _check_conflicts(actions)
    return Update(actions)


def _check_conflicts(actions: Iterable[Action]) -> None:
    """Refuse two actions at one path, or at a path and a part of it: sorted, they stand side by side."""
    for one, other in pairwise(sorted(actions, key=lambda action: action.names)):
        if other.names[: len(one.names)] == one.names:
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

    def of(self, body: bytes, collection: Collection) -> Outcome:
        """Return what the update makes of a stored document.

        Raises:
            DataAPIError: one of the UPDATE codes, or of the codes of a bad document.
        """
        document = read(body)
        if not self._carry_out(document, is_new=False):
            return Outcome(body, body)
        shredded = shred(document, collection.settings, collection.indexing)
        return Outcome(body, shredded.body, is_modified=True, new_id=shredded.id)

    def of_nothing(self, condition: Filter, collection: Collection) -> Outcome:
        """Return the document that an upsert inserts: what the filter says it equals, updated.

        Raises:
            DataAPIError: as ``of``.
        """
        document: dict[str, Any] = {}
        if len(condition.ids_json) == 1:
            document["_id"] = condition.ids_json[0]
        for names, value in condition.equalities:
            find_or_make_place(document, names).put(deepcopy(value))  # the filter's own is not the document's to change
        self._carry_out(document, is_new=True)
        shredded = shred(document, collection.settings, collection.indexing)
        return Outcome(None, shredded.body, new_id=shredded.id, upserted=(shredded.id_json,))

    def _carry_out(self, document: dict[str, Any], *, is_new: bool) -> bool:
        """Carry out the actions; return whether the Data API would call the document modified."""
        modified = [action.change(document) for action in self.actions if is_new or action.operator != "$setOnInsert"]
        return any(modified)

"""A model of the Data API: as much of four commands as a store uses, written from what the real one was seen to do.

Each document of a request is read or changed in a step of its own, at a moment of its own, in any order: no more is
promised by the Data API than that each is atomic. It answers as little as it may: short pages, empty pages that are not
the last, documents in any order, fewer deletions at a time than were asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

__all__ = ["DOCUMENT_FAULTS", "Command", "ModelServer", "Sizes", "failure"]

DOCUMENT_FAULTS = {
    "document failed, not stored": ("TIMEOUT_WRITING_DATA", False),
    "document failed, stored": ("TIMEOUT_WRITING_DATA", True),
    "document failed unforeseen, not stored": ("UNEXPECTED_DRIVER_ERROR", False),
    "document failed unforeseen, stored": ("UNEXPECTED_DRIVER_ERROR", True),
}
"""What may happen to one document of an insertMany: the code that is answered, and whether it was stored."""

Trouble = Callable[[str, str], None]
"""Takes the name of a fault and the key that met it."""


class Sizes(NamedTuple):
    """How much the server does at a time.

    Attributes:
        page: documents of a page.
        deleted: documents that one deleteMany removes.
    """

    page: int
    deleted: int


class Command(NamedTuple):
    """A request as the server sees it.

    Attributes:
        name: the command.
        fields: its fields, parsed.
        dice: makes the choices of this request.
        changed: called with each key that is changed, at that moment.
        trouble: called where a single document meets a fault.
        faults: the share of inserted documents that do.
    """

    name: str
    fields: dict[str, Any]
    dice: Random
    changed: Callable[[str], None]
    trouble: Trouble
    faults: float = 0.0

    @property
    def keys(self) -> list[str]:
        """The keys that it is about; none of a scan."""
        if self.name == "insertMany":
            return [document["_id"] for document in self.fields["documents"]]
        condition = self.fields.get("filter", {}).get("_id", [])
        return list(condition["$in"]) if isinstance(condition, dict) else [condition] if condition else []


def failure(code: str, *, family: str = "SERVER", scope: str = "DATABASE", key: str | None = None) -> dict[str, Any]:
    """Return an entry of ``errors``."""
    entry: dict[str, Any] = {"errorCode": code, "family": family, "scope": scope, "title": code, "message": code}
    return entry if key is None else {**entry, "documentIds": [key]}


class ModelServer:
    """One collection.

    Attributes:
        documents: what is stored, by key.
    """

    def __init__(self, sizes: Sizes, order: Random) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self._sizes = sizes
        self._token_seed = order.getrandbits(64)
        self._pages = 0

    async def answer(self, command: Command) -> bytes:
        """Carry out a command; return the body of the answer."""
        reply = await {
            "insertMany": self._insert_many,
            "findOneAndReplace": self._find_one_and_replace,
            "deleteMany": self._delete_many,
            "find": self._find,
        }[command.name](command)
        return json.dumps(reply).encode()

    async def _insert_many(self, command: Command) -> dict[str, Any]:
        documents = command.fields["documents"]
        is_ordered = command.fields.get("options", {}).get("ordered", False)
        order = list(range(len(documents)))
        if not is_ordered:
            command.dice.shuffle(order)
        outcomes: dict[int, dict[str, Any] | None] = {}
        for position in order:
            await _a_moment(command.dice)
            outcomes[position] = self._insert(command, documents[position])
            if is_ordered and outcomes[position] is not None:
                break
        in_order = sorted(outcomes.items())
        inserted = [documents[position]["_id"] for position, error in in_order if error is None]
        errors = [error for _, error in in_order if error is not None]
        return {"status": {"insertedIds": inserted}, **({"errors": errors} if errors else {})}

    def _insert(self, command: Command, document: dict[str, Any]) -> dict[str, Any] | None:
        key = document["_id"]
        if key in self.documents:
            return failure("DOCUMENT_ALREADY_EXISTS", family="REQUEST", scope="DOCUMENT", key=key)
        name = command.dice.choice(list(DOCUMENT_FAULTS)) if command.dice.random() < command.faults else None
        code, is_stored = DOCUMENT_FAULTS[name] if name else ("", True)
        if name:
            command.trouble(name, key)
        if is_stored:
            self.documents[key] = document
            command.changed(key)
        return failure(code, key=key) if name else None

    async def _find_one_and_replace(self, command: Command) -> dict[str, Any]:
        await _a_moment(command.dice)
        (key,) = command.keys
        new = command.fields["replacement"]
        old = self.documents.get(key)
        if old is not None and command.dice.random() < command.faults:
            # So it is answered, without an error, where a delete comes in between; here without the delete.
            command.trouble("replace overtaken", key)
            return {"data": {"document": None}, "status": {"matchedCount": 1, "modifiedCount": 0}}
        if old is None and not command.fields.get("options", {}).get("upsert"):
            return {"data": {"document": None}, "status": {"matchedCount": 0, "modifiedCount": 0}}
        if old != new:
            self.documents[key] = new
            command.changed(key)
        if old is None:
            status: dict[str, Any] = {"matchedCount": 0, "modifiedCount": 0, "upsertedId": key}
            return {"data": {"document": None}, "status": status}
        return {"data": {"document": {"_id": key}}, "status": {"matchedCount": 1, "modifiedCount": int(old != new)}}

    async def _delete_many(self, command: Command) -> dict[str, Any]:
        found = []
        for key in _shuffled(command.keys, command.dice):
            await _a_moment(command.dice)
            if key in self.documents:
                found.append(key)
        chosen, left = found[: self._sizes.deleted], found[self._sizes.deleted :]
        deleted = 0
        for key in chosen:
            await _a_moment(command.dice)
            if self.documents.pop(key, None) is not None:
                deleted += 1
                command.changed(key)
        if not left:
            return {"status": {"deletedCount": deleted}}
        for key in command.keys:  # the whole command is to be sent again, and may delete what others put meanwhile
            command.trouble("moreData", key)
        return {"status": {"deletedCount": deleted, "moreData": True}}

    async def _find(self, command: Command) -> dict[str, Any]:
        state = json.loads(command.fields.get("options", {}).get("pageState", "null"))
        if command.keys:
            wanted = _shuffled(command.keys, command.dice) if state is None else state["wanted"]
            documents, left = await self._some_of(wanted, command.dice)
            following: Any = {"wanted": left} if left else None
        else:
            await _a_moment(command.dice)
            documents, last = self._page(state["after"] if state else -1, command.dice)
            following = None if last is None else {"after": last}
        if following is not None:
            self._pages += 1
            following["page"] = self._pages  # no state comes twice, also not after an empty page
        without_value = command.fields.get("projection") == {"value": False, "encoding": False, "body_blob": False}
        shown = [{"_id": document["_id"]} if without_value else document for document in documents]
        return {"data": {"documents": shown, "nextPageState": following and json.dumps(following)}}

    async def _some_of(self, wanted: list[str], dice: Random) -> tuple[list[dict[str, Any]], list[str]]:
        size = dice.randint(0, self._sizes.page)
        documents = []
        for key in wanted[:size]:
            await _a_moment(dice)
            if key in self.documents:
                documents.append(self.documents[key])
        return documents, wanted[size:]

    def _page(self, after: int, dice: Random) -> tuple[list[dict[str, Any]], int | None]:
        """Return the next documents in the order of tokens, and the last token; None for it where there are no more."""
        tokens = sorted((token, key) for key in self.documents if (token := self._token(key)) > after)
        size = dice.randint(0, self._sizes.page)
        chosen = tokens[:size]
        documents = [self.documents[key] for _, key in chosen]
        if len(chosen) < size:
            return documents, None
        return documents, chosen[-1][0] if chosen else after

    def _token(self, key: str) -> int:
        return Random(f"{self._token_seed} {key}").getrandbits(62)


async def _a_moment(dice: Random) -> None:
    await asyncio.sleep(dice.expovariate(1 / 0.004))


def _shuffled(keys: list[str], dice: Random) -> list[str]:
    found = list(keys)
    dice.shuffle(found)
    return found

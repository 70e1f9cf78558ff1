"""Page states: where a command has come to, as a text that a client sends back for the next page."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from langchain_kv.engines.base import DocId
from langchain_kv.errors import DataAPIError
from langchain_kv.server.commands.requests import mismatch

__all__ = ["Position", "page_state", "parse_position"]


class Position(NamedTuple):
    """Where a command has come to.

    Attributes:
        sent: how many documents earlier pages held, which count against a limit.
        after: the id of the last one, or None at the start.
    """

    sent: int = 0
    after: DocId | None = None

    def as_page_state(self) -> str:
        """Return the text that ``parse_position`` reads: opaque to clients, safe in a URL."""
        kind, name = (b"s", self.after.encode()) if isinstance(self.after, str) else (b"b", self.after or b"")
        return base64.urlsafe_b64encode(b"%d:%s%s" % (self.sent, kind, name)).decode().rstrip("=")


def page_state(options: dict[str, Any]) -> str:
    """Return the option ``pageState`` (or ``pagingState``, its older name); empty without one.

    Raises:
        DataAPIError: it is no text.
    """
    state = options.get("pageState")
    if state is None:
        state = options.get("pagingState")
    if state is None:
        return ""
    if not isinstance(state, str):
        raise mismatch("The option 'pageState' is the text that a page before held as 'nextPageState'.")
    return state


def parse_position(state: str) -> Position:
    """Return where a page state points to: the start for an empty one.

    Raises:
        DataAPIError: UNEXPECTED_SERVER_ERROR, as on the Data API, for text that is no page state.
    """
    if not state:
        return Position()
    try:
        sent, _, name = base64.urlsafe_b64decode(state.encode("ascii") + b"==").partition(b":")
        if not sent.isdigit() or name[:1] not in (b"s", b"b") or len(name) < 2:
            raise ValueError(state)
        position = Position(int(sent), name[1:].decode() if name[:1] == b"s" else name[1:])
        if position.as_page_state() != state:  # base64 passes over much that is none of its own
            raise ValueError(state)
        return position
    except ValueError:
        raise DataAPIError.of(
            "UNEXPECTED_SERVER_ERROR",
            "The option 'pageState' is none that this server made: send the 'nextPageState' of the page before,"
            " unchanged, or leave it out to begin anew.",
        ) from None

"""One request and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from yarl import URL

from langchain_kv.backends.dataapi import replies
from langchain_kv.backends.dataapi.client import Pool, Reply, prepared
from langchain_kv.backends.dataapi.commands import LARGE_BYTES, Command
from langchain_kv.backends.dataapi.retry import Attempt, Call
from langchain_kv.errors import BadReplyError, DataAPIError, StoreError
from langchain_kv.runtime.slices import next_turn

__all__ = ["Sender", "hide_token", "next_state"]

T = TypeVar("T")

TOKEN_MIN_LENGTH: Final = 6
"""A shorter token is no secret, and taking it out of messages would only garble them."""


class Sender:
    """Sends the requests on one collection. Holds no token; each operation's Call has it.

    Attributes:
        keyspace_url: where commands on the keyspace go.
    """

    def __init__(
        self, pool: Callable[[], Pool], base_url: str, keyspace: str, collection: str, headers: Mapping[str, str]
    ) -> None:
        self._pool = pool
        self.keyspace_url = URL(f"{base_url}/v1/{keyspace}", encoded=True)
        self._url = URL(f"{base_url}/v1/{keyspace}/{collection}", encoded=True)
        self._name = f"{keyspace}.{collection}"
        self._headers = headers

    async def send(
        self,
        call: Call,
        command: Command,
        read: Callable[[int, bytes | bytearray, str], T],
        *,
        url: URL | None = None,
        timeout_s: float | None = None,
        on_doubt: Callable[[], None] | None = None,
    ) -> T:
        """Send a command until it is answered; return what ``read`` makes of the answer.

        Args:
            call: the operation that it is a part of.
            command: the command.
            read: reads an answer's status and body; it gets the words for what was tried, too.
            url: where it goes; None: to the collection.
            timeout_s: seconds for one try, in place of the usual.
            on_doubt: called after each try that may have been carried out, although it failed.
        """
        what = f"{command.name} on {self._name}"
        target = url or self._url
        pool = self._pool()

        async def attempt(one: Attempt) -> T:
            try:
                reply = await pool.post(target, command.parts or command.body, self._request_headers(call), one)
                if len(reply.body) >= LARGE_BYTES:
                    await next_turn()
                return _readable(read, reply, what)
            except StoreError as error:
                hide_token(error, call.token)
                if on_doubt is not None and error.applied is None:
                    on_doubt()
                raise

        return await call.persist(attempt, pool.flow(), timeout_s=timeout_s, what=what, count=command.key_count)

    def _request_headers(self, call: Call) -> Mapping[str, str]:
        if call.headers is None:
            call.headers = prepared(self._headers if call.token is None else {**self._headers, "Token": call.token})
        return call.headers


def _readable(read: Callable[[int, bytes | bytearray, str], T], reply: Reply, what: str) -> T:
    """Read an answer; one in which something is of another type than it should be is not one of the Data API."""
    try:
        return read(reply.status, reply.body, what)
    except StoreError:
        raise
    except Exception as error:
        failure = BadReplyError(
            f"The answer to {what} is not one of the Data API ({type(error).__name__} in reading it): check the"
            " endpoint.",
            http_status=reply.status,
        )
    raise failure  # out here: the exception, which may hold the whole answer, is not its context


def next_state(page: replies.Page, state: str | None) -> str | None:
    """Return what asks for the page after this one, which ``state`` asked for."""
    if page.state is not None and page.state == state:
        raise BadReplyError("The service answered the same page state twice: the scan would never end. Try again.")
    return page.state


def hide_token(error: StoreError, token: str | None) -> None:
    """Take the token out of a message that quotes the service's words."""
    if token is None or len(token) < TOKEN_MIN_LENGTH:
        return
    if any(isinstance(part, str) and token in part for part in error.args):
        error.args = tuple(part.replace(token, "***") if isinstance(part, str) else part for part in error.args)
    if isinstance(error, DataAPIError) and token in error.title:
        error.title = error.title.replace(token, "***")

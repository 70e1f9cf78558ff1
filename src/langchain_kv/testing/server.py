"""A Data API server of a test's own: an engine, the server on a thread, and the layer that fails as told."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self

from langchain_kv import KVByteStore, KVStore
from langchain_kv.engines.base import Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.errors import ConfigError, UsageError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.embedded import release_engine
from langchain_kv.places.files import FilePlace
from langchain_kv.places.memory import MemoryPlace
from langchain_kv.places.schemes import parse_url
from langchain_kv.server.http.app import DataAPI, server_token
from langchain_kv.server.http.running import run_app_in_thread
from langchain_kv.testing.creation import SlowCreation
from langchain_kv.testing.faults import Fault, Faults, Received, code_answer, status_answer

__all__ = ["DataAPIServer"]


class DataAPIServer:
    """A Data API on a thread of this process, at a free port of the loopback address, for the length of a ``with``.

    Its methods may be called from any thread, and from coroutines: the server does not run in the test's event loop.

    Args:
        db: ``sqlite:PATH`` keeps a file, all of which ``reset`` deletes; None keeps everything in a memory of its own.
        token: what clients have to send.

    Attributes:
        url: what stores and clients take as their endpoint.
        token: what they take as their token.

    Raises:
        ConfigError: ``db`` names no place on this machine, or no client could send the token.

    Example:
        >>> from langchain_kv import AstraDBStore
        >>> from langchain_kv.testing import DataAPIServer
        >>> with DataAPIServer() as server:
        ...     with AstraDBStore("kv", token=server.token, api_endpoint=server.url) as store:
        ...         server.fail(command="findOneAndReplace", status=503)
        ...         store.mset([("a", 1)])
        ...     server.commands
        ['findCollections', 'createCollection', 'findOneAndReplace', 'findOneAndReplace']
    """

    def __init__(self, db: str | None = None, token: str = "test-token") -> None:  # noqa: S107 - it guards nothing
        place = None if db is None else parse_url(db)
        if place is not None and not isinstance(place, FilePlace | MemoryPlace):
            raise ConfigError(
                "A test's server empties all that it keeps: give it a file of its own (sqlite:PATH), not the URL of a"
                " server or a cluster."
            )
        self._place = place
        self.url = ""
        self.token = str(server_token(token))
        self._stores: list[KVStore | KVByteStore] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._engine: Engine = MemoryEngine()
            if self._place is not None:
                self._engine = self._place.acquire_engine()
                stack.callback(release_engine, self._engine)
            self._creation = SlowCreation(DataAPI(self._engine, self.token), self._engine)
            self._faults = Faults(self._creation)
            self.url = stack.enter_context(run_app_in_thread(self._faults))
            stack.callback(self._faults.clear)
            stack.callback(self._close_stores)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def reset(self) -> None:
        """Make the server as new: close the stores it made, remove faults, the record and everything kept.

        Requests that a fault holds up are hung up on and not carried out; others end first.

        Raises:
            EngineBusyError: a request has not ended within 10 seconds.
        """
        self._close_stores()
        self._creation.delay_s = 0.0
        self._faults.clear()
        for keyspace in self._engine.keyspaces():
            self._engine.drop_keyspace(keyspace)
        self._engine.create_keyspace(DEFAULT_KEYSPACE)

    # -- stores -----------------------------------------------------------------------------------------------------

    def store(self, collection: str = "kv", **arguments: Any) -> KVStore:
        """Return a store on this server, closed by ``reset``; ``arguments`` are further ones of ``KVStore``."""
        store = KVStore(collection, self.url, token=self.token, **arguments)
        self._stores.append(store)
        return store

    def byte_store(self, collection: str = "kv", **arguments: Any) -> KVByteStore:
        """As ``store``, for bytes."""
        store = KVByteStore(collection, self.url, token=self.token, **arguments)
        self._stores.append(store)
        return store

    def _close_stores(self) -> None:
        while self._stores:
            self._stores.pop().close()

    # -- faults -----------------------------------------------------------------------------------------------------

    def fail(
        self,
        times: int | None = 1,
        *,
        command: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
        code: str | None = None,
        drop: bool = False,
        delay_s: float = 0.0,
        applied: bool = False,
    ) -> None:
        """Let the next requests fail in one way. Several calls add up: each request meets the first fault for it.

        Args:
            times: how many requests; None for all until ``heal`` or ``reset``.
            command: only this command, such as ``insertMany``; None for any request.
            status: answer with this HTTP status, 200 to 599, and no body, as a gateway would.
            retry_after_s: with ``status``: whole seconds for the header ``Retry-After``.
            code: answer as the Data API does with this error code, such as ``UNAVAILABLE_DATABASE``.
            drop: close the connection without an answer.
            delay_s: wait so many seconds first; alone, the right answer follows.
            applied: carry the request out first, so that the write happened though the answer says otherwise.

        Raises:
            UsageError: none, or more than one, of status, code and drop, or a number that makes no sense.
        """
        kinds = (status is not None) + (code is not None) + drop
        if kinds > 1 or not (kinds or delay_s):
            raise UsageError("A fault is one of status=, code= and drop=True, or a delay_s= alone: give one.")
        if retry_after_s is not None and (status is None or retry_after_s < 0):
            raise UsageError("retry_after_s= is a number of seconds, 0 or more, and goes with status=.")
        if (status is not None and not 200 <= status <= 599) or (times is not None and times < 1) or not delay_s >= 0:
            raise UsageError("A fault needs a status of 200 to 599, a delay_s of 0 or more, and times of 1 or more.")
        answer = (
            status_answer(status, retry_after_s)
            if status is not None
            else code_answer(code)
            if code is not None
            else None
        )
        self._faults.add(Fault(times, command, answer, drop, delay_s, applied))

    def create_slowly(self, delay_s: float = 10.0) -> None:
        """Make collections, until ``reset``, as slowly as the real Data API on Apache Cassandra does.

        One is listed from the beginning of its creation, and other commands on it answer that it does not exist until
        the end. A creation that meets another one of the same collection fails, and drops it, as that server does by
        default: so several processes that open one new collection at once can be tried.

        Args:
            delay_s: seconds that a creation takes; 0 for no time at all.

        Raises:
            UsageError: ``delay_s`` is negative.
        """
        if not delay_s >= 0:
            raise UsageError("create_slowly takes a number of seconds, 0 or more.")
        self._creation.delay_s = delay_s

    def heal(self) -> None:
        """Remove every fault: the next request gets the right answer."""
        self._faults.heal()

    # -- what came in -----------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Received]:
        """Every request since the last ``reset``, in the order of arrival, those included that a fault met."""
        return list(self._faults.received)

    @property
    def commands(self) -> list[str]:
        """The names of their commands: ``server.commands.count("insertMany")`` says how often one came."""
        return [received.command for received in self._faults.received if received.command]

"""A small Data API on loopback that misbehaves as told.

It answers from a dict of raw JSON texts, remembers every request, and counts connections. The system chooses the port.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

__all__ = ["Answer", "Door", "Fault", "Misbehaving", "Request", "api_error", "unused_port"]

PAGE_SIZE = 50
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value that makes a socket's end a reset."""


class Request(NamedTuple):
    """What came in: the command and its parts, on which connection."""

    path: str
    headers: dict[str, str]
    name: str
    options: dict[str, Any]
    body: bytes
    connection: int


class Answer(NamedTuple):
    """A fault: this answer, in place of the right one.

    Attributes:
        status, body, headers: what is sent.
        applied: whether the command is carried out first.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    applied: bool = False


class Fault(NamedTuple):
    """A fault of the network.

    Attributes:
        kind: ``reset`` (the connection, before any answer), ``stall`` (no answer), ``stall in the middle`` (part of
            the answer, then silence), ``truncate`` (part of it, then the end), ``drip`` (a byte at a time, for ever),
            ``garble`` (broken JSON of the right length), ``hang up`` (the right answer, then the end of the
            connection, unannounced), ``chunked`` (no fault: the right answer, by chunks).
        applied: whether the command is carried out first.
    """

    kind: str
    applied: bool = False


def api_error(
    code: str, *, scope: str = "DATABASE", family: str = "SERVER", ids: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    """Make an entry of ``errors``."""
    entry = {
        "errorCode": code,
        "scope": scope,
        "family": family,
        "title": f"Title of {code}",
        "message": f"About {code}",
        "id": "0",
    }
    return {**entry, **({"documentIds": ids} if ids is not None else {}), **more}


def errors(*entries: dict[str, Any]) -> Answer:
    """Answer with errors at HTTP 200."""
    return Answer(200, json.dumps({"errors": list(entries)}).encode())


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


def unused_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Script = Callable[[Request], Answer | Fault | None]
Door = Literal["open", "shut", "deaf", "full", "slammed"]


class Misbehaving:
    """The server; a context manager.

    Attributes:
        door: what happens to new connections; see ``set_door``.
        documents: raw JSON text by key, of the one collection ``c``; ``settings`` by collection name.
        script: asked at each request for a fault.
        faults: taken from the left, one a request, before ``script`` is asked.
        met: each request whose turn came, with the fault that it met, or None.
        delay_s: how long each answer waits, so that concurrency shows.
    """

    def __init__(self) -> None:
        self.documents: dict[Any, str] = {}
        self.settings: dict[str, dict[str, Any]] = {"c": {"indexing": {"allow": ["_id"]}}}
        self.requests: list[Request] = []
        self.met: list[tuple[Request, Answer | Fault | None]] = []
        self.faults: deque[Answer | Fault | None] = deque()
        self.script: Script = lambda request: None
        self.delay_s = 0.0
        self.page_size = PAGE_SIZE
        self.empty_pages: set[int] = set()
        self.in_flight = 0
        self.in_flight_max = 0
        self.connections = 0
        self.open_connections = 0
        self.arrived = threading.Condition()

    def __enter__(self) -> Misbehaving:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._fillers: list[socket.socket] = []
        self._listener = _bound(0)
        self.door: Door = "shut"
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.set_door("open")
        return self

    def __exit__(self, *_: object) -> None:
        self._on_loop(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def set_door(self, door: Door) -> None:
        """Change what new connections meet; on return it is so. Those that nobody has answered yet are reset.

        Args:
            door: ``open`` (they are served), ``shut`` (the port is ours and nothing listens: they are refused),
                ``deaf`` (they are made, and nobody reads), ``full`` (the queue of connections is: nothing comes back),
                ``slammed`` (they are reset as soon as they are made).
        """
        self._on_loop(self._set_door(door))

    def _on_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _set_door(self, door: Door) -> None:
        self._shut()
        self._listener = _bound(self.port)
        self.door = door
        if door in ("open", "deaf", "slammed"):
            self._listener.listen(100)
        if door in ("open", "slammed"):
            self.loop.add_reader(self._listener, self._accept)
        if door == "full":
            self._listener.listen(0)  # Linux keeps one connection, and drops whoever comes after it
            self._fillers.append(socket.create_connection(("127.0.0.1", self.port), timeout=5))

    def _shut(self) -> None:
        self.loop.remove_reader(self._listener)
        self._listener.close()
        while self._fillers:
            self._fillers.pop().close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        if self.door == "slammed":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
            return
        connection.setblocking(False)
        task = self.loop.create_task(self._serve(connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: connection.close())  # a task that is cancelled early never sees it

    @property
    def names(self) -> list[str]:
        return [request.name for request in self.requests]

    def plant(self, **values: Any) -> None:
        for key, value in values.items():
            self.documents[key] = json.dumps({"_id": key, "value": value})

    def values(self) -> dict[Any, Any]:
        return {key: json.loads(text)["value"] for key, text in self.documents.items()}

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until the condition holds; looked at whenever a request or a connection comes or goes."""
        with self.arrived:
            assert self.arrived.wait_for(condition, timeout_s), "it did not happen in time"

    def close_idle(self) -> None:
        """End every connection, as a server does with idle ones."""

        async def close() -> None:
            for writer in list(self._writers):
                writer.close()

        self._on_loop(close())

    async def _stop(self) -> None:
        self._shut()
        while self._serving:
            for task in self._serving:
                task.cancel()
            await asyncio.wait(self._serving, timeout=0.05)

    def _changed(self) -> None:
        with self.arrived:
            self.arrived.notify_all()

    async def _serve(self, connection: socket.socket) -> None:
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=2**26)
            self._writers.add(writer)
            while await self._serve_one(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            if writer is not None:
                await self._end(writer)
            self.open_connections -= 1
            self._changed()

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()
        try:
            await writer.wait_closed()
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
            await asyncio.sleep(0)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        command = json.loads(body)
        name = next(iter(command))
        request = Request(head[0].split()[1], headers, name, command[name], body, number)
        self.requests.append(request)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        self._changed()
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            fault = (self.faults.popleft() if self.faults else None) or self.script(request)
            self.met.append((request, fault))
            return await self._answer(request, fault, writer)
        finally:
            self.in_flight -= 1
            self._changed()

    async def _answer(self, request: Request, fault: Answer | Fault | None, writer: asyncio.StreamWriter) -> bool:
        reply = self._carry_out(request) if fault is None or fault.applied else b""
        if fault is None:
            return await _send(writer, 200, reply, {})
        if isinstance(fault, Answer):
            return await _send(writer, fault.status, fault.body, dict(fault.headers))
        if fault.kind == "stall":
            await asyncio.Event().wait()
        if fault.kind == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            return False
        if fault.kind == "garble":
            return await _send(writer, 200, reply[: len(reply) // 2] or b'{"da', {})
        if fault.kind == "hang up":
            await _send(writer, 200, reply, {})
            return False
        if fault.kind == "chunked":
            await _send(writer, 200, b"%x\r\n%b\r\n0\r\n\r\n" % (len(reply), reply), {"Transfer-Encoding": "chunked"})
            return True
        return await _send_in_part(writer, fault.kind, reply)

    # -- the commands -------------------------------------------------------------------------------------------

    def _carry_out(self, request: Request) -> bytes:
        return str(getattr(self, f"_{request.name}")(request.options)).encode()

    def _find(self, options: dict[str, Any]) -> str:
        wanted = options.get("filter", {}).get("_id", {}).get("$in")
        state = options.get("options", {}).get("pageState")
        if wanted is not None:
            assert len(wanted) <= 100
            return _page([self.documents[key] for key in reversed(wanted) if key in self.documents], None)
        page = int(state or 0)
        texts = list(self.documents.values())
        start = (page - len([empty for empty in self.empty_pages if empty < page])) * self.page_size
        chosen = [] if page in self.empty_pages else texts[start : start + self.page_size]
        # As the real one: a last page that is full is followed by an empty one.
        is_last = page not in self.empty_pages and len(chosen) < self.page_size
        if options.get("projection") == {"value": False, "encoding": False, "body_blob": False}:
            shown = [json.loads(text) for text in chosen]
            left_out = ("value", "encoding", "body_blob")
            chosen = [json.dumps({k: v for k, v in document.items() if k not in left_out}) for document in shown]
        return _page(chosen, None if is_last else str(page + 1))

    def _findOneAndReplace(self, options: dict[str, Any]) -> str:
        key, document = options["filter"]["_id"], json.dumps(options["replacement"])
        assert options["options"] == {"upsert": True}
        assert options["projection"] == {"value": False}
        before = self.documents.get(key)
        self.documents[key] = document
        if before is None:
            status: dict[str, Any] = {"matchedCount": 0, "modifiedCount": 0, "upsertedId": key}
        else:
            status = {"matchedCount": 1, "modifiedCount": int(before != document)}
        return json.dumps({"data": {"document": None if before is None else {"_id": key}}, "status": status})

    def _insertMany(self, options: dict[str, Any]) -> str:
        assert options["options"] == {"ordered": False}
        assert 1 <= len(options["documents"]) <= 100
        inserted, failed = [], []
        for document in options["documents"]:
            key = document["_id"]
            if key in self.documents:
                failed.append(api_error("DOCUMENT_ALREADY_EXISTS", scope="DOCUMENT", family="REQUEST", ids=[key]))
            else:
                self.documents[key] = json.dumps(document)
                inserted.append(key)
        return json.dumps({"status": {"insertedIds": inserted}, **({"errors": failed} if failed else {})})

    def _deleteMany(self, options: dict[str, Any]) -> str:
        found = [key for key in options["filter"]["_id"]["$in"] if key in self.documents]
        for key in found[:20]:
            del self.documents[key]
        more = {"moreData": True} if len(found) > 20 else {}
        return json.dumps({"status": {"deletedCount": len(found[:20]), **more}})

    def _findCollections(self, options: dict[str, Any]) -> str:
        found = [{"name": name, "options": settings} for name, settings in self.settings.items()]
        return json.dumps({"status": {"collections": found}})

    def _createCollection(self, options: dict[str, Any]) -> str:
        self.settings[options["name"]] = options["options"]
        return '{"status":{"ok":1}}'

    def _deleteCollection(self, options: dict[str, Any]) -> str:
        self.settings.pop(options["name"], None)
        self.documents.clear()
        return '{"status":{"ok":1}}'


def _page(texts: list[str], state: str | None) -> str:
    return f'{{"data":{{"documents":[{",".join(texts)}],"nextPageState":{json.dumps(state)}}}}}'


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str]) -> bool:
    headers = {"Content-Type": "application/json", **headers}
    if "Transfer-Encoding" not in headers:
        headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)
    await writer.drain()
    return True


async def _send_in_part(writer: asyncio.StreamWriter, kind: str, reply: bytes) -> bool:
    length = 1000 if kind == "drip" else max(len(reply), 40)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length)
    while kind == "drip":
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)
    writer.write(reply[:20])
    await writer.drain()
    if kind == "stall in the middle":
        await asyncio.Event().wait()
    return False

"""A small HTTP proxy on loopback: it passes requests on, opens tunnels, and remembers what it was asked."""

from __future__ import annotations

import http.client
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ForwardProxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_let_through():
            return
        target = urlsplit(self.path)
        sent = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        onward = http.client.HTTPConnection("127.0.0.1", self.server.port_of(target.hostname, target.port or 80))
        onward.request("POST", target.path, body, sent)
        reply = onward.getresponse()
        data = reply.read()
        onward.close()
        self._answer(reply.status, data)

    def do_CONNECT(self) -> None:
        if not self._is_let_through():
            return
        host, _, port = self.path.partition(":")
        with socket.create_connection(("127.0.0.1", self.server.port_of(host, int(port)))) as onward:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            back = threading.Thread(target=_copy, args=(onward, self.connection))
            back.start()
            _copy(self.connection, onward)
            back.join()
        self.close_connection = True

    def _is_let_through(self) -> bool:
        self.server.asked.append((self.command, self.path))
        self.server.logins.append(self.headers["Proxy-Authorization"])
        if self.server.refuses:
            self._answer(self.server.refuses, b"<title>no</title>")
        return not self.server.refuses

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class ForwardProxy(http.server.ThreadingHTTPServer):
    """A running proxy.

    Attributes:
        names: the port on loopback that stands for a name, which nobody else can look up.
        refuses: the status that it answers with, 0 for none.
        asked: method and target of each request to it.
        logins: the Proxy-Authorization of each.
    """

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_secure = context is not None
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.names: dict[str, int] = {}
        self.refuses = 0
        self.asked: list[tuple[str, str]] = []
        self.logins: list[str | None] = []

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_port}" if self.is_secure else f"http://127.0.0.1:{self.server_port}"

    def port_of(self, name: str | None, port: int) -> int:
        return self.names.get(name or "", port)

    def handle_error(self, *_: Any) -> None:  # a client that went away
        pass


@contextmanager
def forward_proxy(context: ssl.SSLContext | None = None) -> Iterator[ForwardProxy]:
    """Run a proxy, that speaks TLS itself where a context is given."""
    with ForwardProxy(context) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()

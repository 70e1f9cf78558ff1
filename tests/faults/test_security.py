"""What SECURITY.md promises of connections, the server, files and stored bytes. Tokens: test_token_masked.py."""

from __future__ import annotations

import ast
import contextlib
import gzip
import hmac
import http.client
import http.server
import json
import os
import pickle
import re
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import langchain_kv
from faults.proxy import Answer, Misbehaving
from langchain_kv import KVByteStore, KVStore
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.errors import BadReplyError, ConfigError, ConnectError, StoreError
from langchain_kv.places.backups import back_up
from langchain_kv.places.schemes import parse_url
from langchain_kv.server.http import app
from langchain_kv.server.http.connections import HEAD_MAX_BYTES
from langchain_kv.server.http.running import run_in_thread

pytestmark = pytest.mark.slow

TOKEN = "token-of-security"
PACKAGE = Path(langchain_kv.__file__).parent


# -- TLS ----------------------------------------------------------------------------------------------------------


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority (ca.pem), another one (other.pem), and a server's certificate for localhost."""
    folder = tmp_path_factory.mktemp("certificates")
    try:
        openssl("version", folder=folder)
    except FileNotFoundError:
        pytest.skip("makes certificates with the command openssl, which is not here")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
            folder=folder,
        )  # fmt: skip
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=x", folder=folder)
    (folder / "names").write_text("subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "names", "-out", "server.pem", folder=folder,
    )  # fmt: skip
    return folder


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a find with one document, and remembers who asked with which token."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.append(self.headers["Token"])  # type: ignore[attr-defined]
        body = b'{"data":{"documents":[{"_id":"a","value":1}],"nextPageState":null}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens: list[str] = []
        self.connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: Any) -> None:  # a client that refused the certificate
        pass


@contextmanager
def serving(server: Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def tls_server(certificates: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    server = Server()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server


class Options:
    """An astrapy APIOptions that names a file of certificate authorities."""

    def __init__(self, ca_file: Path | None) -> None:
        self.ca_cert_path = None if ca_file is None else str(ca_file)


def opened(url: str, ca_file: Path | None = None) -> KVStore:
    return KVStore("c", url, token=TOKEN, setup_mode="OFF", api_options=Options(ca_file))


def test_a_certificate_of_a_given_authority_is_accepted(tls_server: Server, certificates: Path) -> None:
    with opened(f"https://localhost:{tls_server.server_port}", certificates / "ca.pem") as store:
        assert store.mget(["a"]) == [1]
    assert tls_server.tokens == [TOKEN]


@pytest.mark.parametrize(
    ("host", "ca_file"), [("localhost", None), ("localhost", "other.pem"), ("127.0.0.1", "ca.pem")],
    ids=["unknown authority", "another authority", "another name"],
)  # fmt: skip
def test_a_certificate_that_is_not_good_is_refused_at_once(
    tls_server: Server, certificates: Path, host: str, ca_file: str | None
) -> None:
    url = f"https://{host}:{tls_server.server_port}"
    began = time.monotonic()
    with opened(url, None if ca_file is None else certificates / ca_file) as store:
        for call in (lambda: store.mget(["a"]), lambda: store.mset([("a", 1)]), lambda: list(store.yield_keys())):
            with pytest.raises(ConnectError, match="certificate") as caught:
                call()
            assert (caught.value.retryable, caught.value.applied) == (False, False)
    assert time.monotonic() - began < 10
    assert tls_server.connections == 3
    assert tls_server.tokens == []


def test_a_file_that_is_no_certificate_is_refused_before_anything_is_sent(tls_server: Server, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    for name in ("ca.pem", "missing.pem"):
        store = opened(f"https://localhost:{tls_server.server_port}", tmp_path / name)
        with pytest.raises(ConfigError, match="certificates"):
            store.mget(["a"])
        store.close()
    assert tls_server.connections == 0


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_nobody_else_sees_the_token(status: int) -> None:
    with Misbehaving() as here, serving(elsewhere := Server()) as port:
        for where in (f"http://127.0.0.1:{port}/", f"http://localhost:{port}/v1", "/v1/k/c"):
            here.script = lambda request, where=where: Answer(status, b"", (("Location", where),))
            with opened(here.url) as store:
                for call in (lambda: store.mget(["a"]), lambda: store.mset([("a", 1)])):
                    with pytest.raises(BadReplyError, match="redirects are not followed") as caught:
                        call()
                    assert (caught.value.retryable, caught.value.applied) == (False, False)
        assert len(here.requests) == 6
    assert (elsewhere.connections, elsewhere.tokens) == (0, [])


# -- what a service sends -----------------------------------------------------------------------------------------

BOMB = """
import gzip, io, resource, sys, threading, zlib, http.server
from langchain_kv import KVStore
from langchain_kv.errors import BadReplyError

packer = zlib.compressobj(1, wbits=31)
parts = [packer.compress(bytes(2**24)) for _ in range(64)]
bomb = b"".join(parts) + packer.flush()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(bomb)))
        self.end_headers()
        try:
            self.wfile.write(bomb)
        except OSError:
            pass
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with KVStore("c", f"http://127.0.0.1:{server.server_port}", setup_mode="OFF", deadline_s=20) as store:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        store.mget(["a"])
    except BadReplyError as error:
        assert not error.retryable, error
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in KiB on Linux")
def test_a_reply_that_decompresses_to_a_gigabyte_is_refused_in_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", BOMB], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout, done.stderr
    assert int(done.stdout) < 200


def test_a_compressed_reply_of_usual_size_is_read() -> None:
    page = gzip.compress(b'{"data":{"documents":[{"_id":"a","value":1}],"nextPageState":null}}')
    with Misbehaving() as server, opened(server.url) as store:
        server.script = lambda request: Answer(200, page, (("Content-Encoding", "gzip"),))
        assert store.mget(["a"]) == [1]
    assert server.requests[0].headers["accept-encoding"] == "identity"


# -- the server ---------------------------------------------------------------------------------------------------

COMMAND = b'{"findCollections":{}}'
SIZE = len(COMMAND)
HEAD = b"POST /v1/default_keyspace HTTP/1.1\r\nHost: x\r\nToken: %b\r\n" % TOKEN.encode()
GOOD = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % SIZE + COMMAND
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

MALFORMED = {
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: %d\r\nContent-Length: 3\r\n\r\n" % SIZE + COMMAND,
    "one length twice": HEAD + b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (SIZE, SIZE) + COMMAND,
    "a list of lengths": HEAD + b"Content-Length: %d, %d\r\n\r\n" % (SIZE, SIZE) + COMMAND,
    "a signed length": HEAD + b"Content-Length: +%d\r\n\r\n" % SIZE + COMMAND,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + COMMAND,
    "a hexadecimal length": HEAD + b"Content-Length: 0x16\r\n\r\n" + COMMAND,
    "a length of 23 digits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + COMMAND,
    "a folded header": HEAD + b"X-A: b\r\n c\r\nContent-Length: %d\r\n\r\n" % SIZE + COMMAND,
    "folded chunks": HEAD + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n" + COMMAND,
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: %d\n\n" % SIZE + COMMAND,
    "one bare line feed": HEAD + b"X-A: b\nContent-Length: %d\r\n\r\n" % SIZE + COMMAND,
    "a bare carriage return": HEAD + b"X-A: b\rContent-Length: %d\r\n\r\n" % SIZE + COMMAND,
    "a space before the colon": HEAD + b"Content-Length : %d\r\n\r\n" % SIZE + COMMAND,
    "a NUL": HEAD + b"X-A: a\0b\r\nContent-Length: %d\r\n\r\n" % SIZE + COMMAND,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n16\r\n" + COMMAND + b"\r\n0\r\n\r\n",
    "chunks not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n16\r\n" + COMMAND + b"\r\n0\r\n\r\n",
    "a chunk with bare line feeds": CHUNKED + b"16\n" + COMMAND + b"\n0\n\n",
    "a chunk of negative size": CHUNKED + b"-16\r\n" + COMMAND + b"\r\n0\r\n\r\n",
    "a chunk of endless size": CHUNKED + b"ffffffffffffffffff\r\n" + COMMAND + b"\r\n0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without end": HEAD + b"X-A: " + b"a" * (HEAD_MAX_BYTES * 5),
    "many headers": HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(30_000)) + b"\r\n",
    "a long path": b"GET /" + b"a" * (HEAD_MAX_BYTES * 5) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture(scope="module")
def lckv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real ``lckv serve`` on a file: its URL, and the file."""
    db = tmp_path_factory.mktemp("served") / "kv.db"
    command = [sys.executable, "-m", "langchain_kv.cli", "serve", "--db", f"sqlite:{db}", "--port", "0"]
    environment = {**os.environ, "LCKV_TOKEN": TOKEN}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], db
        process.terminate()


def exchange(url: str, *parts: bytes, waits: bool = True) -> list[bytes]:
    """Send parts, each after an answer to the one before (if it ``waits``); return the status of each answer."""
    answers = b""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
                if waits and part is not parts[-1]:
                    answers += connection.recv(65536)
            while received := connection.recv(65536):
                answers += received
        except ConnectionError:  # it had enough
            pass
        except TimeoutError:
            pytest.fail(f"the connection stays open after {answers!r}")
    return re.findall(rb"HTTP/1\.1 (\d{3})", answers)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_request_is_refused_and_the_next_one_answered(lckv: tuple[str, Path], kind: str) -> None:
    url, _ = lckv
    assert exchange(url, MALFORMED[kind]) in ([b"400"], [])  # [] where its answer was lost in the reset
    assert exchange(url, GOOD) == [b"200"]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"other"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_offer_of_another_protocol_is_passed_over(lckv: tuple[str, Path], protocol: bytes, framing: str) -> None:
    offer = b"Connection: %b, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\n" % (b"Upgrade", protocol)

    def body(content: bytes) -> bytes:
        if framing == "length":
            return b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
        return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)

    # A body is not taken for a request of its own, and what comes after it is the next request, wherever it is cut.
    stream = HEAD + offer + body(SMUGGLED) + HEAD + offer + body(COMMAND) + GOOD
    ends = HEAD + offer + body(SMUGGLED)
    for cut in (len(stream), 20, len(HEAD), len(HEAD + offer) + 10, len(ends) - 3, len(ends), len(ends) + 30):
        assert exchange(lckv[0], stream[:cut], stream[cut:], waits=False) == [b"200"] * 3
    assert exchange(lckv[0], HEAD + offer.replace(b"Upgrade,", b"Upgrade, close,") + body(COMMAND)) == [b"200"]


def ask(
    url: str, path: str = "/v1/default_keyspace", body: bytes = COMMAND, method: str = "POST", **headers: Any
) -> Any:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        sent = {name.replace("_", "-"): value for name, value in {"Token": TOKEN, **headers}.items() if value}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_a_compressed_body_is_not_decompressed(lckv: tuple[str, Path]) -> None:
    status, _, reply = ask(lckv[0], body=gzip.compress(COMMAND), Content_Encoding="gzip")
    assert (status, json.loads(reply)["errors"][0]["errorCode"]) == (200, "REQUEST_NOT_JSON")


@pytest.mark.parametrize("path", ["/v1", "/v1/default_keyspace", "/v1/default_keyspace/c", "/v1/x/y/z", "/v1/../v1"])
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("host", ["localhost", "evil.example", "rebound.evil.example:80"])
def test_a_web_page_has_no_token_and_gets_nothing(lckv: tuple[str, Path], path: str, method: str, host: str) -> None:
    """A foreign Host is answered as any other: a page that had its name rebound to loopback has no token either.

    The token stands in a header that no browser adds by itself, so the name that was called says nothing more; a proxy
    or a container calls the server by names of its own.
    """
    body = b'{"createCollection":{"name":"made_by_a_page"}}'
    for headers in (
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/json", "Cookie": f"Token={TOKEN}"},
        {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "token"},
    ):
        status, answered, _ = ask(
            lckv[0], path, body, method, Token=None, Host=host, Origin="https://evil.example", **headers
        )
        assert status == 401
        assert not [name for name in answered if name.startswith("access-control")]
    assert b"made_by_a_page" not in ask(lckv[0])[2]


def test_without_a_token_a_body_is_not_read(lckv: tuple[str, Path]) -> None:
    head = b"POST /v1/default_keyspace HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((urlsplit(lckv[0]).hostname, urlsplit(lckv[0]).port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_no_answer_allows_another_origin(lckv: tuple[str, Path]) -> None:
    for path in ("/", "/stargate/health", "/v1/default_keyspace", "/nowhere"):
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            _, answered, _ = ask(lckv[0], path, method=method, Origin="https://evil.example")
            assert not [name for name in answered if name.startswith("access-control")]


def test_a_form_is_refused_even_with_the_token(lckv: tuple[str, Path]) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert ask(lckv[0], Content_Type=kind)[0] == 415


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return hmac.compare_digest(given, right)

    monkeypatch.setattr(app, "hmac", type("hmac", (), {"compare_digest": staticmethod(spy)}))
    with run_in_thread(MemoryEngine(), TOKEN) as url:
        given = [TOKEN, TOKEN[:-1], TOKEN + "x", "x" * len(TOKEN), "x"]
        assert [ask(url, Token=token)[0] for token in given] == [200, 401, 401, 401, 401]
    assert compared == [(token.encode(), TOKEN.encode()) for token in given]


# -- names and files ----------------------------------------------------------------------------------------------

NAMES = [
    "..",
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "c'; DROP TABLE docs_1; --",
    "é",
    "a" * 49,
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_never_a_path_or_a_statement(lckv: tuple[str, Path], name: str, tmp_path: Path) -> None:
    for arguments in ({"collection": name}, {"collection": "c", "keyspace": name}):
        with pytest.raises(ConfigError, match="not a"):
            KVStore(url=f"sqlite:{tmp_path / 'kv.db'}", **arguments)
    assert list(tmp_path.iterdir()) == []
    url, db = lckv
    for command in ("createCollection", "deleteCollection"):
        reply = json.loads(ask(url, body=json.dumps({command: {"name": name}}).encode())[2])
        assert "errors" in reply or (command, reply) == ("deleteCollection", {"status": {"ok": 1}})
    reply = json.loads(ask(url, "/v1", json.dumps({"createKeyspace": {"name": name}}).encode())[2])
    assert "errors" in reply
    assert {each.name for each in db.parent.iterdir()} <= {"kv.db", "kv.db-wal", "kv.db-shm", "kv.db.lock"}


@pytest.mark.parametrize(
    "path",
    ["/v1/../../etc/passwd", "/v1/%2e%2e/%2e%2e", "/v1/default_keyspace/%2e%2e%2fx", "/v1/..%5c..",
     "/v1/default_keyspace/a%00b", "//v1", "/v1/default_keyspace/%c3%a9", "/v1/default_keyspace/x'%20OR%201=1"],
)  # fmt: skip
def test_a_url_leads_nowhere_but_to_collections(lckv: tuple[str, Path], path: str) -> None:
    url, db = lckv
    status, _, reply = ask(url, path, b'{"insertOne":{"document":{"_id":"x"}}}')
    assert status in (404, 405) or "errors" in json.loads(reply)
    assert {each.name for each in db.parent.iterdir()} <= {"kv.db", "kv.db-wal", "kv.db-shm", "kv.db.lock"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_what_a_store_writes_is_its_owners_only(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with KVStore("c", f"sqlite:{tmp_path / 'kv.db'}") as store:
            store.mset([("a", 1)])
            back_up(parse_url(f"sqlite:{tmp_path / 'kv.db'}"), str(tmp_path / "copy.db"))
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(modes, 0o600)
    assert modes.keys() >= {"kv.db", "kv.db-wal", "kv.db-shm", "kv.db.lock", "copy.db"}


# -- stored bytes -------------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}
FORBIDDEN_MODULES |= {"importlib", "runpy", "code", "langchain_core.load"}


IMPORTERS = {
    # They load modules of their own, by a name in a table.
    "__init__.py": {"importlib", "importlib.import_module"},
    "testing/__init__.py": {"importlib", "importlib.import_module"},
    "cli/dispatch.py": {"importlib", "importlib.import_module"},
    # It loads the standard library's own threading anew, where gevent or eventlet patched it.
    "runtime/threads.py": {"importlib"},
    # It loads the module of a URL's scheme, which its own table or an installed package's entry point names: nothing
    # that is stored has a part in it. `entry` is an entry point, which has a `load`.
    "places/schemes.py": {
        "importlib",
        *("importlib.metadata", "importlib.metadata.EntryPoint", "importlib.metadata.entry_points"),
        "entry",
    },
    # It looks whether a library is there, by a name of this package's own.
    "places/extras.py": {"importlib.util", "importlib.util.find_spec"},
    # langchain-core makes the answers again, of a list of classes that hold data only, without secrets.
    "llm_cache.py": {"langchain_core.load"},
}
"""What modules may have of these all the same."""


def constructs(source: str) -> set[str]:
    """Return what in a source could make code or objects of bytes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.add(node.func.id)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update(name for name in names if {name, name.partition(".")[0]} & FORBIDDEN_MODULES)
        if isinstance(node, ast.Attribute) and node.attr in ("loads", "load") and isinstance(node.value, ast.Name):
            found.update({node.value.id} - {"json", "orjson"})
    return found


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_construct_what_is_stored(module: Path) -> None:
    assert constructs(module.read_text()) <= IMPORTERS.get(module.relative_to(PACKAGE).as_posix(), set())


@pytest.mark.parametrize(
    "source", ["import pickle", "from pickle import loads", "eval('1')", "import yaml", "__import__('os')",
     "marshal.loads(b'')",
               "import importlib.util", "from langchain_core import load"],
)  # fmt: skip
def test_the_search_finds_what_could(source: str) -> None:
    assert constructs(source)


class Trap:
    """What a pickle of it does when it is loaded: it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_hostile_stored_bytes_stay_data(sqlite_place: Any, tmp_path: Path) -> None:
    import base64

    trap = tmp_path / "sprung"
    bomb = base64.b64encode(pickle.dumps(Trap(trap))).decode()
    serialized = {"lc": 1, "type": "constructor", "id": ["langchain_core", "documents", "Document"], "kwargs": {}}
    values: list[Any] = [
        bomb, serialized, {"__reduce__": bomb}, "!!python/object/apply:os.system [x]", {"py/object": "os.system"},
        {"__class__": "os"}, {"$type": "System.Diagnostics.Process"}, "__import__('os').system('x')",
    ]  # fmt: skip
    store = sqlite_place.store(KVStore, "hostile")
    store.mset([(f"k{n}", value) for n, value in enumerate(values)])
    assert store.mget([f"k{n}" for n in range(len(values))]) == values
    assert dict(store.yield_items()) == {f"k{n}": value for n, value in enumerate(values)}
    as_bytes = sqlite_place.store(KVByteStore, "hostile")
    assert as_bytes.mget(["k0"]) == [base64.b64decode(bomb)]
    assert not trap.exists()


@pytest.mark.parametrize(
    "body",
    [b"\x80\x04\x95.", b"", b"\0", b"[", b"{" * 5000, b"[" * 100_000, b'{"_id":"k","value":1e999999999}', b"\xff\xfe",
     b'{"_id":"k","value":"\\ud800"}', b'{"_id":"k"}', b'{"_id":"k","value":1,"encoding":"pickle"}',
     b'{"_id":"k","value":"x","encoding":"json"}', b'{"_id":"k","value":' + b"9" * 100_000 + b"}"],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_a_hostile_body_is_read_or_refused_and_its_neighbours_are_read(sqlite_place: Any, body: bytes) -> None:
    from langchain_kv.engines.base import CollectionName

    store = sqlite_place.store(KVStore, "bodies")
    store.mset([("good", 1)])
    sqlite_place.engine.write(CollectionName("default_keyspace", "bodies"), [("k", body, False, None)])
    for call in (lambda: store.mget(["k"]), lambda: list(store.yield_items())):
        with contextlib.suppress(StoreError):
            call()
    assert sorted(store.yield_keys()) == ["good", "k"]
    assert store.mget(["good"]) == [1]

"""A node that speaks TLS only and asks for client certificates: the URL's parameters, and what their errors say."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from cassandra_node import missing
from cassandra_own_nodes import OwnNode, own_nodes
from installed import need
from langchain_kv import KVStore
from langchain_kv.errors import ConfigError, ConnectError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ENCRYPTION = """\
client_encryption_options:
  enabled: true
  optional: false
  keystore: {home}/node.p12
  keystore_password: cassandra
  require_client_auth: true
  truststore: {home}/trust.p12
  truststore_password: cassandra
  store_type: PKCS12
"""


class Certificates(NamedTuple):
    """Where the PEM files are.

    Attributes:
        ca: of the authority that signed all the others but ``other_ca``.
        other_ca: of another authority.
        client: a client's certificate.
        client_key: its key.
    """

    ca: Path
    other_ca: Path
    client: Path
    client_key: Path


def run(*command: str | Path) -> None:
    subprocess.run([os.fspath(part) for part in command], check=True, capture_output=True)


def make_authority(home: Path, name: str) -> Path:
    run(
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        *["-days", "2", "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        *["-keyout", home / f"{name}.key", "-out", home / f"{name}.pem"],
    )
    return home / f"{name}.pem"


def make_certificate(home: Path, name: str, extensions: str = "") -> tuple[Path, Path]:
    """Return a certificate that ``ca`` signed, and its key."""
    request, key, pem, file = (home / f"{name}.{kind}" for kind in ("csr", "key", "pem", "ext"))
    run(
        *["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        *["-subj", f"/CN={name}", "-keyout", key, "-out", request],
    )
    file.write_text(f"subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{extensions}\n")
    run(
        *["openssl", "x509", "-req", "-in", request, "-CA", home / "ca.pem", "-CAkey", home / "ca.key"],
        *["-CAcreateserial", "-days", "2", "-extfile", file, "-out", pem],
    )
    return pem, key


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def certificates(home: Path) -> Certificates:
    if shutil.which("openssl") is None or shutil.which("keytool") is None:
        pytest.skip("needs openssl, and Java's keytool")
    ca, other = make_authority(home, "ca"), make_authority(home, "other")
    node, key = make_certificate(home, "node", "subjectAltName=IP:127.0.0.1")
    run(
        *["openssl", "pkcs12", "-export", "-in", node, "-inkey", key, "-certfile", ca, "-name", "node"],
        *["-passout", "pass:cassandra", "-out", home / "node.p12"],
    )
    run(
        *["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", ca, "-storetype", "PKCS12"],
        *["-storepass", "cassandra", "-keystore", home / "trust.p12"],
    )
    return Certificates(ca, other, *make_certificate(home, "client"))


@pytest.fixture(scope="module")
def node(home: Path, certificates: Certificates) -> Iterator[OwnNode]:
    need(missing())
    nodes = home / "nodes"
    nodes.mkdir()
    with own_nodes(nodes, more=ENCRYPTION.format(home=home)) as (only,):
        yield only


def url(node: OwnNode, query: str, host: str = "127.0.0.1") -> str:
    return f"cassandra://{host}:{node.port}/tls?{query}&connect_timeout_s=15"


def client(certificates: Certificates) -> str:
    return f"ca_file={certificates.ca}&cert_file={certificates.client}&key_file={certificates.client_key}"


async def test_values_go_by_tls_both_ways(node: OwnNode, certificates: Certificates) -> None:
    with KVStore("kv", url(node, client(certificates))) as store:
        store.mset([("a", 1)])
        assert await store.amget(["a", "b"]) == [1, None]
        session = store._backend._opened_engine._session._session  # type: ignore[attr-defined]
        assert session.cluster.control_connection._connection._socket.version().startswith("TLS")


def test_a_certificate_and_its_key_may_be_in_one_file(node: OwnNode, certificates: Certificates, home: Path) -> None:
    both = home / "both.pem"
    both.write_text(certificates.client.read_text() + certificates.client_key.read_text())
    with KVStore("kv", url(node, f"ca_file={certificates.ca}&cert_file={both}")) as store:
        assert store.mget(["missing"]) == [None]


def test_a_node_of_another_authority_is_refused(node: OwnNode, certificates: Certificates) -> None:
    with pytest.raises(ConnectError, match=r"certificate.*verify failed") as caught:
        connect(url(node, client(certificates).replace("/ca.pem", "/other.pem")))
    assert "ca_file=" in str(caught.value)
    assert (caught.value.applied, caught.value.retryable) == (False, True)


def test_the_systems_authorities_do_not_know_the_node(node: OwnNode) -> None:
    with pytest.raises(ConnectError, match="verify failed"):
        connect(url(node, "ssl=true"))


def test_the_certificate_must_carry_the_hosts_address(home: Path, certificates: Certificates) -> None:
    elsewhere = make_certificate(home, "elsewhere", "subjectAltName=IP:192.0.2.1")
    with shaking_hands(*elsewhere) as port:
        address = f"cassandra://127.0.0.1:{port}/tls?{client(certificates)}&connect_timeout_s=3"
        with pytest.raises(ConnectError, match=r"IP address mismatch.*verify_hostname="):
            connect(address)
        with pytest.raises(ConnectError) as caught:  # the handshake is over: what answers is no Cassandra
            connect(f"{address}&verify_hostname=false")
        assert "mismatch" not in str(caught.value)


@contextmanager
def shaking_hands(certificate: Path, key: Path) -> Iterator[int]:
    """Give the port of a server that speaks TLS by this certificate, and hangs up after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed: the test is over
                return
            with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(9)  # the client's greeting

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_client_without_a_certificate_is_refused(node: OwnNode, certificates: Certificates) -> None:
    with pytest.raises(ConnectError, match="cert_file="):
        connect(url(node, f"ca_file={certificates.ca}"))


def test_plain_text_is_refused(node: OwnNode) -> None:
    with pytest.raises(ConnectError, match="ssl="):
        connect(url(node, "ssl=false"))


def test_files_that_are_no_certificates_are_told(node: OwnNode, home: Path) -> None:
    text = home / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(ConfigError, match="ca_file="):
        connect(url(node, f"ca_file={text}"))


def connect(address: str) -> None:
    with KVStore("kv", address) as store:
        store.mget(["a"])

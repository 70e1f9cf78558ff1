"""A real Apache Cassandra of one node for the tests, from Maven Central's jars, shared by all processes of a session.

The node runs below a small supervisor (this file as a program). Everyone who uses the node holds a shared lock on one
file; the supervisor waits for the exclusive one, so it stops the node when the last user has ended, however it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

VERSION = "5.0.6"
POM = Path(__file__).parent / "cluster" / "pom.xml"
READY_WITHIN_S = 180
IN_MEMORY_FROM_BYTES = 6 << 30
"""Far more than the node keeps: 17 MB were seen, with a quarter of the tests done."""
USER = PASSWORD = "cassandra"

# What Java 17 and later keep shut, and Cassandra opens (its own conf/jvm17-server.options).
EXPORTS = (
    "java.base/java.lang.ref java.base/jdk.internal.misc java.base/sun.nio.ch java.rmi/sun.rmi.registry"
    " java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.server java.rmi/sun.rmi.transport"
    " java.rmi/sun.rmi.transport.tcp java.sql/java.sql jdk.unsupported/sun.misc"
)
OPENS = (
    "java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect java.base/java.math"
    " java.base/java.net java.base/java.nio java.base/java.util java.base/java.util.concurrent"
    " java.base/java.util.concurrent.atomic java.base/java.util.concurrent.locks java.base/jdk.internal.loader"
    " java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.ref"
    " java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/sun.nio.ch"
    " jdk.management/com.sun.management.internal"
)

# Without `unsafesystem` and the delays at 0 the node takes three times as long to start. With 256 MB of heap it ran out
# of memory after some hundred collections of eight indexes each. Passwords are hashed as little as it allows: at its
# default each session of the driver took 0.3 s of its processor time to log in, a quarter of what tests took of it.
FLAGS = (
    "-Xms512m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Djdk.attach.allowAttachSelf=true"
    " -Djava.net.preferIPv4Stack=true -Dcassandra.unsafesystem=true -Dcassandra.superuser_setup_delay_ms=0"
    " -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=0 -Dcassandra-foreground=yes"
    " -Dcassandra.auth_bcrypt_gensalt_log2_rounds=4"
)

SETTINGS = """\
cluster_name: langchain-kv tests
num_tokens: 1
auto_snapshot: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: periodic
commitlog_sync_period: 10000ms
listen_address: {host}
rpc_address: {host}
native_transport_port: {port}
storage_port: {storage_port}
endpoint_snitch: SimpleSnitch
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
partition_keys_in_select_fail_threshold: {in_max}
# A machine that runs the tests may be slow.
read_request_timeout: 20s
range_request_timeout: 20s
write_request_timeout: 20s
cas_contention_timeout: 10s
request_timeout: 20s
# As with a heap of the usual size, so that the largest documents fit.
native_transport_max_message_size: 16MiB
native_transport_max_request_data_in_flight_per_ip: 64MiB
native_transport_max_request_data_in_flight: 64MiB
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{host}:{storage_port}"}}]
"""

LOGBACK = """\
<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{HH:mm:ss,SSS} %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="STDOUT"/></root>
  <logger name="org.apache.cassandra.service.CassandraDaemon" level="INFO"/>
</configuration>
"""


class Node(NamedTuple):
    """A running node.

    Attributes:
        host: its address.
        port: where it speaks CQL; the user and the password of its superuser are both ``cassandra``.
        in_max: the partitions that one statement of an ordinary user may name; the superuser may name any number.
    """

    host: str
    port: int
    in_max: int

    def url(self, keyspace: str = "", *, user: str = USER, password: str = PASSWORD, query: str = "") -> str:
        """Return the URL of a keyspace on this node."""
        return f"cassandra://{user}:{password}@{self.host}:{self.port}/{keyspace}" + (f"?{query}" if query else "")


def missing() -> str | None:
    """Return why no node can be started on this machine, or None."""
    if os.name != "posix":
        return "Apache Cassandra runs on POSIX systems only"
    if java_version() < 17:
        return "Apache Cassandra needs Java 17 (openjdk-17-jre-headless)"
    if not _is_fetched() and shutil.which("mvn") is None:
        return "fetching Apache Cassandra needs Maven (mvn)"
    try:
        import cassandra.cluster  # noqa: F401
    except ImportError:
        return "the driver is missing: pip install cassandra-driver"
    return None


@contextmanager
def running_node() -> Iterator[Node]:
    """Give the node of this test session; the session's first user starts it, and it ends with the last."""
    home = _home()
    users = _lock_as_user(home)
    try:
        with open(home / "starting", "w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            file = home / "node.json"
            if not file.exists():
                _start_supervisor(home)
            node = Node(**json.loads(file.read_text()))
        yield node
    finally:
        users.close()


def what_it_does() -> str:
    """Return the end of the node's log, with what each of its threads does now; empty where no node runs."""
    home = _home()
    try:
        os.kill(int((home / "java.pid").read_text()), signal.SIGQUIT)
        time.sleep(1)  # until it has written
        return (home / "node.log").read_text(errors="replace")[-100_000:]
    except OSError:
        return ""


def _home() -> Path:
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    return _room() / f"langchain-kv-cassandra-{session}"


def _room() -> Path:
    """Return where the node keeps its files, of which each DROP TABLE writes many: in memory, if there is room."""
    memory = Path("/dev/shm")
    has_room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > IN_MEMORY_FROM_BYTES
    return memory if has_room else Path(tempfile.gettempdir())


def _lock_as_user(home: Path) -> IO[str]:
    """Return the file whose shared lock says that this process uses the node."""
    while True:
        home.mkdir(mode=0o700, exist_ok=True)
        users = open(home / "users", "w")  # noqa: SIM115 - it is the lock, held for as long as it is open
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a node is being stopped, whose directory then goes
        try:
            if os.path.samestat(os.fstat(users.fileno()), os.stat(users.name)):
                return users
        except FileNotFoundError:
            pass
        users.close()


# -- starting, in the process that needs the node -------------------------------------------------------------------


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else shutil.which("java") or "java"


def java_version() -> int:
    try:
        told = subprocess.run([_java(), "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r'version "(\d+)', told)
    return int(found.group(1)) if found else 0


def _cache() -> Path:
    root = os.environ.get("LCKV_TEST_CACHE") or Path.home() / ".cache" / "langchain-kv"
    return Path(root) / f"cassandra-{VERSION}"


def _is_fetched() -> bool:
    return (_cache() / "complete").exists()


def fetch() -> Path:
    """Return the directory of the jars, fetched by the first process that needs them."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "fetching", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_fetched():
            subprocess.run(
                [
                    *["mvn", "-q", "-B", "-f", os.fspath(POM), "dependency:copy-dependencies"],
                    *["-DincludeScope=runtime", f"-DoutputDirectory={cache / 'jars'}"],
                ],
                check=True,
            )
            (cache / "complete").touch()
    return cache / "jars"


def _start_supervisor(home: Path) -> None:
    jars = fetch()
    with open(home / "supervisor.log", "w") as log:
        supervisor = subprocess.Popen(
            [sys.executable, __file__, os.fspath(home), os.fspath(jars), str(java_version())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is the tests'; the lock tells it when to stop
        )
    deadline = time.monotonic() + READY_WITHIN_S
    while not (home / "node.json").exists():
        if supervisor.poll() is not None or time.monotonic() > deadline:
            logs = [path.read_text()[-3_000:] for path in sorted(home.glob("*.log"))]
            raise RuntimeError("Cassandra did not start:\n" + "\n".join(logs))
        time.sleep(0.05)
    supervisor.returncode = 0  # it outlives this process: no warning that it still runs


# -- the supervisor ---------------------------------------------------------------------------------------------------


PORTS = range(10_000, 32_768)
"""Below those that systems give to connections that go out, one of which could take a port before its server does."""


def free_ports(host: str, count: int) -> list[int]:
    """Return ports that nobody has at this moment."""
    found: set[int] = set()
    while len(found) < count:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with suppress(OSError), socket.create_server((host, port)):
            found.add(port)
    return list(found)


def _start_node(
    home: Path, jars: Path, java_version: int, log: IO[str], libraries: str
) -> tuple[subprocess.Popen[bytes], Node]:
    host, in_max = "127.0.0.1", 60
    port, storage_port = free_ports(host, 2)
    settings = SETTINGS.format(host=host, port=port, storage_port=storage_port, in_max=in_max)
    return start_process(home, jars, java_version, settings, log, libraries=libraries), Node(host, port, in_max)


def start_process(
    home: Path,
    jars: Path,
    java_version: int,
    settings: str,
    log: IO[str],
    flags: str = FLAGS,
    *,
    libraries: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a node with these settings, which keeps all that it writes below ``home``.

    Args:
        libraries: the directory into which it unpacks libraries, and leaves them there when it is killed; None is
            ``home``, which must not be mounted ``noexec`` then.
    """
    (home / "cassandra.yaml").write_text(settings)
    (home / "logback.xml").write_text(LOGBACK)
    command = [_java(), *flags.split()]
    command += [f"--add-exports={module}=ALL-UNNAMED" for module in EXPORTS.split()]
    command += [f"--add-opens={module}=ALL-UNNAMED" for module in OPENS.split()]
    if java_version > 17:
        command.append("-Djava.security.manager=allow")
    command += [
        f"-Dcassandra.config=file://{home / 'cassandra.yaml'}",
        f"-Dlogback.configurationFile={home / 'logback.xml'}",
        f"-Dcassandra.storagedir={home / 'data'}",
        f"-Dcassandra.logdir={home}",
        f"-Djava.io.tmpdir={libraries or home}",
        "-cp",
        os.fspath(jars / "*"),
        "org.apache.cassandra.service.CassandraDaemon",
    ]
    return subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def driver_of(host: str, port: int, **options: Any) -> Any:
    """Return the driver's Cluster that asks this one node only."""
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.policies import WhiteListRoundRobinPolicy

    # Other tests keep the node busy.
    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([host]), request_timeout=60)
    return Cluster(
        [host],
        port=port,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        protocol_version=5,
        connect_timeout=60,
        control_connection_timeout=60,
        **options,
    )


def _can_log_in(node: Node) -> bool:
    """Whether the superuser is there, which the node makes only after it has begun to listen."""
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import NoHostAvailable

    cluster = driver_of(node.host, node.port, auth_provider=PlainTextAuthProvider(USER, PASSWORD))
    try:
        cluster.connect().execute("SELECT release_version FROM system.local")
    except NoHostAvailable:
        return False
    finally:
        cluster.shutdown()
    return True


def _wait_until_ready(process: subprocess.Popen[bytes], node: Node) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            listens = probe.connect_ex((node.host, node.port)) == 0
        if listens and _can_log_in(node):
            return
        time.sleep(0.1)
    raise SystemExit(f"the node ended with {process.returncode}")


def _supervise(home: Path, jars: Path, java_version: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        open(home / "node.log", "w") as log,
        open(home / "users", "w") as users,
        # Not in home: containers mount /dev/shm noexec.
        tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True) as libraries,
    ):
        process, node = _start_node(home, jars, java_version, log, libraries)
        (home / "java.pid").write_text(str(process.pid))
        try:
            _wait_until_ready(process, node)
            told = home / "node.json.new"
            told.write_text(json.dumps(node._asdict()))
            told.rename(home / "node.json")
            fcntl.flock(users, fcntl.LOCK_EX)
        finally:
            (home / "node.json").unlink(missing_ok=True)
            process.kill()  # its data are thrown away with it
            process.wait()
            shutil.rmtree(home / "data", ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)  # but the logs stay where the node could not start


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

"""Real SQL databases for the tests: a file, and a PostgreSQL and a MariaDB that are started on free ports.

Each server has a directory of its own, and is stopped by its process id. One that is not installed skips its tests, but
not in CI.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cassandra_node import free_ports
from installed import need

DATABASES = ["sqlite", "sqlite-async", "postgresql", "postgresql-async", "mariadb", "mariadb-async"]
"""Kinds of database, by a driver of plain calls and by one of coroutines."""

READY_WITHIN_S = 120


def server_of(name: str) -> str:
    return name.partition("-")[0]


@contextmanager
def running(name: str, directory: Path) -> Iterator[str]:
    """Run the server of a kind of database; yield the URL of a database of it, for the driver of plain calls."""
    if name == "sqlite":
        yield f"sqlite+sqlalchemy:{directory / 'kv.db'}"
        return
    database = server(name, directory)
    database.start()
    try:
        yield database.url
    finally:
        database.stop()


class Server:
    """A server of a database, in a directory of its own.

    Attributes:
        url: of a database of it, for the driver of plain calls.
    """

    def __init__(
        self,
        url: str,
        command: Sequence[str],
        user: str | None,
        log: Path,
        is_ready: Callable[[], bool],
        signals: tuple[signal.Signals, signal.Signals],
    ) -> None:
        self.url = url
        self._command = command
        self._user = user
        self._log = log
        self._is_ready = is_ready
        self._stop, self._kill = signals
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as output:
            process = subprocess.Popen(self._command, user=self._user, cwd="/", stdout=output, stderr=output)
        self._process = process
        last = time.monotonic() + READY_WITHIN_S
        while not self._is_ready():
            assert process.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < last, self._log.read_text(errors="replace")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in good order."""
        self._end(self._stop)

    def kill(self) -> None:
        """End it at once, so that it has to recover when it is started again."""
        self._end(self._kill)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(READY_WITHIN_S)


def server(name: str, directory: Path) -> Server:
    """Return a new server of a kind of database, which is not started."""
    return {"postgresql": _postgresql, "mariadb": _mariadb}[server_of(name)](directory)


def url_of(name: str, url: str) -> str:
    """Return the URL for the driver of a kind of database."""
    if not name.endswith("-async"):
        return url
    scheme, _, rest = url.partition(":")
    return {"sqlite+sqlalchemy": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mariadb": "mariadb+asyncmy"}[
        scheme
    ] + f":{rest}"


def alchemy_url(url: str) -> str:
    """Return SQLAlchemy's own form of a URL of ours."""
    scheme, _, rest = url.partition(":")
    if scheme in ("sqlite+sqlalchemy", "sqlite+aiosqlite"):
        return f"{scheme.replace('+sqlalchemy', '')}:///{rest}"
    return {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}.get(scheme, scheme) + f":{rest}"


def _postgresql(directory: Path) -> Server:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    need(None if found else "PostgreSQL is not installed (postgresql)")
    assert found is not None
    tools = Path(found).parent
    user = _user("postgres", directory)
    data, port = directory / "data", free_ports("127.0.0.1", 1)[0]
    password = directory / "password"
    password.write_text("secret-of-kv\n")
    password.chmod(0o644)
    auth = ["--auth-host=scram-sha-256", "--auth-local=trust", "--username=kv", f"--pwfile={password}"]
    _run([str(tools / "initdb"), "-D", str(data), "-E", "UTF8", "--locale=C.UTF-8", "-N", *auth], user)
    command = [
        *(str(tools / "postgres"), "-D", str(data), "-p", str(port), "-k", str(directory)),
        *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),  # what is killed is the server, not the machine
    ]

    def is_ready() -> bool:
        asked = [str(tools / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(asked, check=False).returncode == 0

    url = f"postgresql://kv:secret-of-kv@127.0.0.1:{port}/postgres"
    # The first ends its sessions; the second ends all of its processes without a word.
    return Server(url, command, user, directory / "log", is_ready, (signal.SIGINT, signal.SIGQUIT))


def _mariadb(directory: Path) -> Server:
    program = shutil.which("mariadbd", path=f"/usr/sbin:{os.environ.get('PATH', '')}")
    need(None if program else "MariaDB is not installed (mariadb-server)")
    assert program is not None
    user = _user("mysql", directory)
    data, port = directory / "data", free_ports("127.0.0.1", 1)[0]
    # A server that starts removes what looks like a temporary table from there, another running server's, too.
    temporary = directory / "temporary"
    temporary.mkdir()
    if user:
        shutil.chown(temporary, user)
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}", "--skip-test-db"]
    _run([*install, "--auth-root-authentication-method=normal"], user)
    start = directory / "start.sql"
    start.write_text(
        "CREATE DATABASE IF NOT EXISTS kv;\nCREATE USER IF NOT EXISTS kv@'127.0.0.1' IDENTIFIED BY 'secret-of-kv';\n"
        "GRANT ALL ON kv.* TO kv@'127.0.0.1';\n"
    )
    start.chmod(0o644)
    command = [
        *(program, "--no-defaults", f"--datadir={data}", f"--socket={directory / 's'}", f"--port={port}"),
        *("--bind-address=127.0.0.1", f"--pid-file={directory / 'pid'}", f"--init-file={start}"),
        *("--innodb-flush-log-at-trx-commit=2", "--skip-name-resolve", f"--tmpdir={temporary}"),
    ]

    def is_ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    url = f"mariadb://kv:secret-of-kv@127.0.0.1:{port}/kv"
    return Server(url, command, user, directory / "log", is_ready, (signal.SIGTERM, signal.SIGKILL))


def _user(name: str, directory: Path) -> str | None:
    """Return the user that a server runs as, who owns the directory: these servers refuse root."""
    if os.geteuid() != 0:
        return None
    pwd.getpwnam(name)
    shutil.chown(directory, name)
    return name


def _run(command: Sequence[str], user: str | None) -> None:
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""gevent and eventlet: what they patch is no reason to hang, and waiting lets other greenlets run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_kv.testing import DataAPIServer

HERE = Path(__file__).parent
EVENTLET = HERE.parents[1] / "requirements" / "eventlet.txt"
TIMEOUT_S = 150
REQUESTS = 40

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="the programs fork")]


@pytest.fixture
def server() -> Iterator[DataAPIServer]:
    with DataAPIServer() as server:
        yield server


@pytest.fixture(scope="module")
def eventlet_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eventlet, which is not among the tests' own packages: cassandra-driver would import it."""
    folder = tmp_path_factory.mktemp("eventlet")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target", str(folder)]
    done = subprocess.run([*pip, "-r", str(EVENTLET)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:  # it is kept alive, no more, and may not go with the newest Python
        pytest.skip(f"eventlet cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return folder


def saw(library: str, *arguments: str, path: Path | None = None) -> str:
    environ = {**os.environ, "PYTHONPATH": str(path or "")}
    done = subprocess.run(
        [sys.executable, str(HERE / "green_program.py"), library, *arguments],
        capture_output=True,
        text=True,
        env=environ,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


def all_went_well(out: str, *, over_http: bool) -> bool:
    return "False" not in out and len(out.splitlines()) == 7 + over_http


@pytest.mark.parametrize("order", ["first", "later", "used"])
@pytest.mark.parametrize("place", ["http", "sqlite"])
def test_stores_work_under_gevent(place: str, order: str, server: DataAPIServer, tmp_path: Path) -> None:
    url = server.url if place == "http" else f"sqlite:{tmp_path}/kv.db"
    out = saw("gevent", order, url, server.token)
    assert all_went_well(out, over_http=place == "http"), out


@pytest.mark.parametrize("order", ["first", "later"])
@pytest.mark.parametrize("place", ["http", "sqlite"])
def test_stores_work_under_eventlet(
    place: str, order: str, server: DataAPIServer, tmp_path: Path, eventlet_path: Path
) -> None:
    url = server.url if place == "http" else f"sqlite:{tmp_path}/kv.db"
    out = saw("eventlet", order, url, server.token, path=eventlet_path)
    assert all_went_well(out, over_http=place == "http"), out


REFUSED = """
import sys
from gevent import monkey
monkey.patch_all()
from langchain_kv import ConfigError, KVStore
url, token = sys.argv[1:]
try:
    KVStore("kv", "cassandra://127.0.0.1:9")
except ConfigError as error:
    print(error)
with KVStore("kv", url, token=token) as store:
    store.mset([("a", 1)])
    print(store.mget(["a"]))
"""


def test_a_cluster_is_refused_to_greenlets_and_a_server_is_not(server: DataAPIServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, server.url, server.token],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "run lckv serve --db with this URL in a process of its own" in done.stdout, done.stderr
    assert done.stdout.endswith("\n[1]\n"), done.stderr


@pytest.mark.parametrize("order", ["first", "later"])
def test_stores_work_under_gevent_where_uvloop_is_missing(order: str, server: DataAPIServer) -> None:
    url = server.url.replace("127.0.0.1", "localhost")  # a name is looked up aside
    out = saw("gevent", order, url, server.token, "no-uvloop")
    assert all_went_well(out, over_http=True), out


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each worker imports", "the parent imports"])
@pytest.mark.parametrize("place", ["http", "sqlite"])
def test_gunicorns_gevent_workers_answer_every_request(
    place: str, preload: list[str], server: DataAPIServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "--workers", "2", "--bind", "127.0.0.1:0", *preload]
    # A worker that is still starting does not hear that it is to stop, whatever application it has; half a minute is
    # the time that it is given.
    command += ["--graceful-timeout", "3"]
    environ = {
        **os.environ,
        "STORE_URL": server.url if place == "http" else f"sqlite:{tmp_path}/kv.db",
        "STORE_TOKEN": server.token,
    }
    process = subprocess.Popen(
        [*command, "--no-control-socket", "green_app:app"], cwd=HERE, env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"Listening at: (http://\S+)", line):
                break
        assert found, "".join(said)
        drain = threading.Thread(target=process.stderr.read)  # what it says further is not kept in a full pipe
        drain.start()

        def ask(number: int) -> bytes:
            with urllib.request.urlopen(f"{found[1]}/{'x' * number}", timeout=60) as reply:
                content: bytes = reply.read()
                return content

        with ThreadPoolExecutor(10) as executor:
            answers = list(executor.map(ask, range(1, REQUESTS + 1)))
        assert answers == [b"[%d]" % number for number in range(1, REQUESTS + 1)]
    finally:
        process.terminate()
        process.wait(60)
    drain.join(60)
    process.stderr.close()

"""A mixed load for a settable time, over HTTP through faults and on the server's file beside it; then: is all well?

``make soak SECONDS=600`` runs it. A real ``lckv serve`` keeps a file. One process of clients works through a proxy that
injects faults, with threads and with tasks; it and a second process also work on the file itself. Each worker owns its
keys and knows what they hold. At the end every acknowledged value has to be there, asked in the clients, at the server
and in the file, and descriptors, threads, tasks and memory have to be what they were after a warm-up. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.forwarder import Forwarder
from faults.ledger import value_of
from faults.soak_client import COLLECTION, TOKEN, Footprint

__all__ = ["Report", "soak"]

FAULT_SHARES = (0.02, 0.1, 0.5)
"""How many requests meet a fault: mostly, in bad weather, in a storm."""

Possible = dict[str, set[int | None]]


class Report(NamedTuple):
    """What a soak found.

    Attributes:
        seconds: how long all of it took.
        operations, errors, faults: how many, by kind.
        requests: what came to the proxy; ``abandoned``: those that clients gave up while the server worked on them.
        footprints: each process before and after.
        possible: what each key may hold.
        leaks, wrong: in words; a good soak has none.
    """

    seconds: float
    operations: Counter[str]
    errors: Counter[str]
    faults: Counter[str]
    requests: int
    abandoned: int
    footprints: dict[str, tuple[Footprint, Footprint]]
    possible: Possible
    leaks: list[str]
    wrong: list[str]

    def __str__(self) -> str:
        certain = sum(len(numbers) == 1 for numbers in self.possible.values())
        raised = sum(number for kind, number in self.errors.items() if not kind.startswith((" ", "(")))
        rows: list[tuple[str, Any]] = [("seconds", round(self.seconds)), ("operations", self.operations.total())]
        rows += _lines(self.operations)
        rows += [("requests through the proxy", self.requests), ("faults injected", self.faults.total())]
        rows += _lines(self.faults)
        rows += [("requests given up while the server worked", self.abandoned), ("operations that raised", raised)]
        rows += _lines(self.errors)
        for name, pair in self.footprints.items():
            numbers = ", ".join(f"{before:.0f} -> {after:.0f}" for before, after in zip(*pair, strict=True))
            rows.append((f"{name}: descriptors, threads, tasks, MiB", numbers))
        rows += [("keys verified", f"{len(self.possible)}, of which {certain} could hold one thing only")]
        rows += [("leaks", len(self.leaks)), *((f"  {leak}", "") for leak in self.leaks)]
        rows += [("wrong values", len(self.wrong)), *((f"  {text}", "") for text in self.wrong[:20])]
        return "\n".join(f"{name:<50} {value}".rstrip() for name, value in rows)


def _lines(counter: Counter[str]) -> list[tuple[str, Any]]:
    return [(f"  {kind}", number) for kind, number in counter.most_common()]


def soak(seconds: float, directory: Path, *, warm_s: float = 10, seed: int = 0) -> Report:
    """Work for so many seconds after a warm-up; return what was found. The directory takes the file, and a log."""
    began = time.monotonic()
    db, log = directory / "soak.db", directory / "server.log"
    with _serving(db, log) as (url, pid), Forwarder(int(url.rpartition(":")[2]), seed) as forwarder:
        common = {"file_url": f"sqlite:{db}", "seed": seed}
        configs = [
            {"clients": {"name": name, "url": through, **common}, "warm_s": warm_s, "load_s": seconds}
            for name, through in (("h", forwarder.url), ("f", None))
        ]
        with _client(configs[0]) as http_client, _client(configs[1]) as file_client:
            clients = {"clients over HTTP and on the file": http_client, "clients on the file": file_client}
            _await_step(clients)
            before = Footprint.of(pid)
            _go_on(clients)
            _await_step(clients)  # the stores are open: a refused token, one of the faults, ends an opening at once
            _make_weather(forwarder, seconds, seed)
            _await_step(clients)
            _go_on(clients)
            ends = {name: _read_line(client) for name, client in clients.items()}
        after = _settled(pid, before)
        possible: Possible = {key: set(numbers) for end in ends.values() for key, numbers in end["possible"].items()}
        wrong = [text for end in ends.values() for text in end["wrong"]]
        wrong += _differing("at the server", _at_server(url, list(possible)), possible)
    wrong += _differing("in the file", _in_file(db), possible)
    if log.stat().st_size:
        wrong.append(f"the server said: {log.read_text()[:500]}")
    footprints = {name: (Footprint(*end["before"]), Footprint(*end["after"])) for name, end in ends.items()}
    footprints["server"] = (before, after)
    return Report(
        time.monotonic() - began,
        sum((Counter(end["operations"]) for end in ends.values()), Counter()),
        sum((Counter(end["errors"]) for end in ends.values()), Counter()),
        forwarder.injected,
        forwarder.requests,
        forwarder.abandoned,
        footprints,
        possible,
        [f"{name}: {leak}" for name, (was, now) in footprints.items() for leak in now.leaks_since(was)],
        wrong,
    )


# -- the processes ------------------------------------------------------------------------------------------------


@contextmanager
def _serving(db: Path, log: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "langchain_kv.cli", "serve", "--db", f"sqlite:{db}", "--port", "0"]
    environment = {**os.environ, "LCKV_TOKEN": TOKEN}
    with (
        log.open("w") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1], server.pid
        finally:
            server.terminate()
    assert server.returncode == 0, "the server did not end in good order"


@contextmanager
def _client(config: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("soak_client.py")), json.dumps(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        try:
            yield client
        except BaseException:
            client.kill()
            raise
    assert client.returncode == 0, "a client did not end in good order"


def _read_line(client: subprocess.Popen[str]) -> Any:
    assert client.stdout is not None
    return json.loads(client.stdout.readline())


def _await_step(clients: dict[str, subprocess.Popen[str]]) -> None:
    for client in clients.values():
        _read_line(client)


def _go_on(clients: dict[str, subprocess.Popen[str]]) -> None:
    for client in clients.values():
        assert client.stdin is not None
        client.stdin.write("go on\n")
        client.stdin.flush()


def _make_weather(forwarder: Forwarder, seconds: float, seed: int) -> None:
    """Let faults come and go for so long, and sometimes let nobody in."""
    weather = random.Random(seed)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        forwarder.share = weather.choices(FAULT_SHARES, (6, 3, 1))[0]
        forwarder.is_open = weather.random() > 0.05
        time.sleep(min(left, weather.uniform(0.2, 3)))
    forwarder.share, forwarder.is_open = 0.0, True


def _settled(pid: int, before: Footprint) -> Footprint:
    """Return the server's footprint, once it noticed that its clients are gone."""
    for _ in range(100):
        now = Footprint.of(pid)
        if now.descriptors <= before.descriptors:
            break
        time.sleep(0.05)
    return now


# -- what is stored, without the code under test ------------------------------------------------------------------


def _at_server(url: str, keys: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for start in range(0, len(keys), 50):
        body = json.dumps({"find": {"filter": {"_id": {"$in": keys[start : start + 50]}}}}).encode()
        headers = {"Token": TOKEN, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/default_keyspace/{COLLECTION}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            documents = json.load(reply)["data"]["documents"]
        found.update((document["_id"], document["value"]) for document in documents)
    return found


def _in_file(db: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(db)) as connection:
        (number,) = connection.execute("SELECT id FROM collections WHERE name = ?", [COLLECTION]).fetchone()
        bodies = connection.execute(f"SELECT content FROM docs_{number}").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    documents = [json.loads(body) for (body,) in bodies]
    return {document["_id"]: document["value"] for document in documents}


def _differing(where: str, found: dict[str, Any], possible: Possible) -> list[str]:
    wrong = [f"{where}: {key} is nobody's" for key in found.keys() - possible.keys()]
    for key, numbers in possible.items():
        if found.get(key) not in [None if number is None else value_of(number) for number in numbers]:
            wrong.append(f"{where}: {key} holds something else than {numbers}")
    return wrong


def main() -> int:
    """Run it for as many seconds as the command line says; print the table. 1: something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats the faults and the choices")
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    with tempfile.TemporaryDirectory() as directory:
        report = soak(arguments.seconds, Path(directory), seed=arguments.seed)
    print(report)
    return 1 if report.leaks or report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

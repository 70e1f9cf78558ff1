"""What every command prints, on a terminal and piped: ``python -m transcripts`` renews it; a test compares it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv._version import __version__
from langchain_kv.embeddings.vectors import pack
from running import read_terminal, terminals

__all__ = ["FOLDER", "transcript"]

FOLDER: Final = Path(__file__).parent / "data" / "transcripts"

COMMANDS: Final = r"""
lckv set greeting '"hello"' --collection notes
lckv set answer 42 --collection notes
lckv set plain 'no JSON' --collection notes
lckv set plain 'some text' --text --collection notes
lckv set odd NaN --collection notes
lckv set a/1 '{"name": "Ann", "tags": ["x", "y"]}' --collection notes --dry-run
lckv set later 1 --ttl forever --collection notes
lckv get greeting --collection notes
lckv get plain --text --collection notes
lckv get ann --collection kinds
lckv get ann --json --collection kinds
lckv get document --collection kinds
lckv get vector --collection kinds
lckv get raw --collection kinds
lckv get hostile --collection kinds
lckv get hostile --text --collection kinds
lckv get ann --text --collection kinds
lckv get ann raw nowhere --collection kinds
lckv get damaged --collection kinds
lckv get nowhere --collection kinds
lckv get nowhere --json --collection kinds
lckv get greeting --collection none
lckv get greeting --collection none --json
lckv get greeting --db sqlite:none.db --collection notes
lckv get greeting --db memory: --collection notes
lckv get greeting --db http://127.0.0.1:1 --collection notes --timeout 1
lckv get greeting --db http://127.0.0.1:1 --collection notes --timeout 1 --json
lckv get greeting --token secret --collection notes
lckv get greeting --text --bytes --collection notes
lckv get greeting
lckv get --collection notes
lckv get greeting --colour --collection notes
lckv keys --collection kinds
lckv keys --collection kinds --prefix h --json
lckv keys --collection kinds --limit none
lckv keys --collection kinds --limit 2 -0
lckv keys --collection notes --namespace users --namespace u1
lckv items --collection kinds
lckv items --collection kinds --prefix a --json
lckv count --collection notes
lckv count --collection notes extra
lckv collections
lckv collections --keyspace none
lckv namespaces --collection notes
lckv del greeting nowhere --dry-run --collection notes
lckv del greeting --collection notes
lckv del --collection notes
lckv del --prefix a --collection notes
lckv del --prefix a --dry-run --collection notes
lckv del --prefix a --yes --collection notes
lckv del --prefix a --yes --json --collection notes
lckv purge --dry-run --collection notes
lckv purge --collection notes
lckv info
lckv info --db http://127.0.0.1:1 --timeout 1 --json
lckv check
lckv check --collection notes --quiet
lckv compact --dry-run
lckv compact --db http://127.0.0.1:1
lckv backup sqlite:kv.db copy.db --dry-run
lckv backup sqlite:kv.db copy.db
lckv backup sqlite:kv.db copy.db
lckv backup sqlite:kv.db sqlite:copy.db
lckv restore copy.db sqlite:kv.db --dry-run
lckv restore copy.db sqlite:kv.db
lckv restore none.db sqlite:kv.db
lckv copy sqlite:kv.db sqlite:other.db --collection notes --dry-run
lckv copy sqlite:kv.db sqlite:other.db --collection notes --verify --resume notes.resume
lckv copy sqlite:kv.db sqlite:other.db --collection notes --json
lckv copy sqlite:kv.db sqlite:other.db --collection kinds
lckv copy sqlite:kv.db sqlite:kv.db --collection notes
lckv copy sqlite:none.db sqlite:other.db --collection notes
lckv copy sqlite:kv.db sqlite:other.db --collection notes --on-exists merge
lckv set new 1 --db sqlite:other.db --collection notes
lckv diff sqlite:kv.db sqlite:other.db --collection notes
lckv diff sqlite:kv.db sqlite:other.db --collection notes --json
lckv diff sqlite:kv.db sqlite:none.db --collection notes
lckv dump --collection notes
lckv dump --collection none
lckv load - --collection notes
lckv load none.ndjson --collection notes
lckv import-from none sqlite:kv.db --layout files --collection notes
lckv import-from . sqlite:kv.db --layout nothing --collection notes
lckv import-from . sqlite:kv.db --layout sql --collection notes
lckv pack-embeddings sqlite:kv.db sqlite:other.db --collection kinds --to-collection packed
lckv clear --collection notes
lckv clear --dry-run --collection notes
lckv clear --yes --collection notes
lckv drop --collection notes
lckv drop --dry-run --collection notes
lckv drop --yes --collection notes
lckv drop --yes --collection notes --json
lckv serve --host 0.0.0.0
lckv serve --port 65536
lckv explore memory:
lckv explore sqlite:none.db
lckv completion tcsh
lckv gte
lckv --json get greeting
lckv --version
""".strip().splitlines()

_DRIVER: Final = """
import shlex, sys
from langchain_kv.cli import progress
from langchain_kv.cli.main import run
progress._EVERY_S = 3600.0  # whether it is seen depends on the machine
for line in sys.argv[1:]:
    code = run(shlex.split(line)[1:])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        print(f"<end {code}>", file=stream, flush=True)
"""


def transcript(*, on_terminal: bool) -> str:
    """Return each command with what it prints; lines of stderr begin with ``! ``, an exit code but 0 is in brackets."""
    with tempfile.TemporaryDirectory() as folder:
        _fill(folder)
        out, error = _run(folder, on_terminal=on_terminal)
        parts = []
        for line, printed, said in zip(COMMANDS, _parts(out), _parts(error), strict=True):
            text, code = printed
            shown = [f"$ {line}", *_lines(text), *(f"! {one}" for one in _lines(said[0]))]
            parts.append("\n".join([*shown, *([f"[{code}]"] if code != "0" else [])]))
        return _neutral("\n\n".join(parts) + "\n", os.path.realpath(folder))


def _fill(folder: str) -> None:
    url = f"sqlite:{folder}/kv.db"
    with KVStore("notes", url) as store:
        store.mset([("a/1", 1), ("a/2", 2)])
        store.namespace("users", "u1").mset([("k", 1)])
    with KVStore("kinds", url) as store:
        store.mset([("ann", {"name": "Ann", "tags": ["x", "y"]}), ("long", "日本" * 60), ("null", None)])
        store.mset([("hostile\x1b[31m\n", 1), ("hostile", "\x1b[2J\u202e\x9b<img>\nsecond\tline")])
        (number,) = store._backend._engine.look(  # type: ignore[attr-defined]
            lambda connection: connection.execute("SELECT id FROM collections WHERE name='kinds'").fetchone()
        )
        damaged = '{"_id":"damaged","value":2,"encoding":"unknown"}'
        store.mset([("damaged", 2)])
        store._backend._engine.rewrite(  # type: ignore[attr-defined]
            lambda connection: connection.execute(
                f"UPDATE docs_{number} SET content=? WHERE id='damaged'", (damaged.encode(),)
            )
        )
    with KVByteStore("kinds", url) as store:
        store.mset([("raw", bytes(range(80))), ("vector", pack([[0.5, 0.25, 1, 2, 3]])[0])])  # type: ignore[list-item]
    with DocumentStore("kinds", url) as store:
        from langchain_core.documents import Document

        store.mset([("document", Document("Some text.\nIts second line.\x1b[0m", metadata={"page": 1}, id="d1"))])


def _run(folder: str, *, on_terminal: bool) -> tuple[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ASTRA_DB_", "LCKV_"))}
    environment = {**kept, "LCKV_URL": "sqlite:kv.db"}
    command = [sys.executable, "-c", _DRIVER, *COMMANDS]
    if not on_terminal:
        nothing = subprocess.DEVNULL
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, stdin=nothing, check=True)
        return done.stdout.decode(errors="backslashreplace"), done.stderr.decode()
    with terminals(2) as (out, error):
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out.end, stderr=error.end
        ):
            shown = read_terminal([out, error])
    return shown[0], shown[1]


def _parts(text: str) -> list[tuple[str, str]]:
    found = re.split(r"<end (\d+)>\n", text)
    return list(zip(found[::2], found[1::2], strict=False))


def _lines(text: str) -> list[str]:
    shown = "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
    lines = shown.split("\n")
    return lines if lines[-1] else lines[:-1]


def _neutral(text: str, folder: str) -> str:
    """Take out what differs from run to run and from machine to machine."""
    text = text.replace(f"{folder}/", "").replace(__version__, "VERSION")
    # A service that is not there is tried again as often as the time allows.
    text = re.sub(r"^! .*warning: No connection .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r" \(\d+ tries in [\d.]+ s\)", "", text)
    text = re.sub(r'("created": ?"|"sha256": ?")[^"]+', r"\1N", text)
    text = re.sub(r"\[Errno \d+\] Connect call failed \([^)]*\)", "REFUSED", text)
    text = re.sub(r"(answered.ms\"?: +)[\d.]+", r"\1N", text)
    return re.sub(r"(sqlite.version\"?: +)\"?[\d.]+\"?", r"\1N", text)


def main() -> None:
    """Write both transcripts."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, on_terminal in (("terminal.txt", True), ("piped.txt", False)):
        (FOLDER / name).write_text(transcript(on_terminal=on_terminal), "utf-8")


if __name__ == "__main__":
    main()

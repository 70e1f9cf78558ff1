"""Tables, progress, counts and completion: what people and shells see."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_kv import KVStore
from langchain_kv.cli import progress as module
from langchain_kv.cli.dispatch import NAMES, command_of
from langchain_kv.cli.parsing import COMMON
from langchain_kv.cli.progress import Progress, clock
from langchain_kv.cli.table import fact_lines, lines_of, printable
from running import Lckv, on_a_terminal
from served import environment

# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_row_is_printed_before_the_next_but_a_page_is_asked_for() -> None:
    taken = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal taken
        for taken in range(1, 1_001):
            yield {"key": str(taken), "value": "x"}

    lines = lines_of(rows(), ("key", "value"))
    assert next(lines) == "KEY  VALUE"
    assert taken == 200
    next(lines)
    assert taken == 200


def test_a_table_without_rows_has_no_head() -> None:
    assert list(lines_of([], ("key", "value"))) == []


def test_wide_characters_take_two_columns() -> None:
    lines = list(lines_of([{"key": "日本", "value": "1"}, {"key": "abcdef", "value": "2"}], ("key", "value")))

    assert lines == ["KEY     VALUE", "日本    1", "abcdef  2"]


EVIL = "\x1b[2J\x07\u202e\x9b31m\U000e0001"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "del --prefix k --dry-run",
        "del --prefix k --dry-run --json",
        "dump",
        "keys --json",
        "items --json",
        "get k --json",
    ],
)
def test_what_others_stored_can_do_nothing_to_a_terminal(tmp_path: Path, command: str) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([("k", {EVIL: EVIL}), (f"k{EVIL}", EVIL)])
    code, out, _ = on_a_terminal(*command.split(), "--db", url, "--collection", "kv")

    assert code == 0
    assert out.replace("\n", "").isprintable()
    if "--json" in command:
        printed = [json.loads(line) for line in out.splitlines()]
        assert printed[-1] in ("k", f"k{EVIL}", {"key": f"k{EVIL}", "value": EVIL}, {"key": "k", "value": {EVIL: EVIL}})


def test_a_pipe_gets_what_is_stored_exactly(lckv: Lckv, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([(f"k{EVIL}", 1)])
    out = lckv("keys", "--json", "--db", url, "--collection", "kv").out

    assert "\u202e\x9b31m".encode() in out


def test_no_line_is_longer_than_the_terminal() -> None:
    rows = [{"key": "k" * 500, "value": "v" * 500}, {"key": "日" * 500, "value": "本" * 500}]

    for line in lines_of(rows, ("key", "value")):
        assert len(line) + sum(character in "日本" for character in line) <= 80


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\x9b1m", "\u202eabc", "\x7f", "\r", "\ud800", "\x00"])
def test_what_moves_a_cursor_is_escaped(text: str) -> None:
    assert printable(text).isprintable()
    (_, line) = lines_of([{"key": text, "value": text}], ("key", "value"))
    assert line.isprintable()


def test_facts_are_a_line_each() -> None:
    assert list(fact_lines({"a_b": 1_000, "long_name": "\x1b", "is_it": True, "none": None})) == [
        "a b:       1,000",
        "long name: \\x1b",
        "is it:     yes",
        "none:      ",
    ]


def test_a_cell_on_a_narrow_terminal_is_cut(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([("key", "x" * 300)])

    code, out, error = on_a_terminal("items", "--db", url, "--collection", "kv", columns=40)

    assert (code, error) == (0, "")
    assert all(len(line) <= 40 for line in out.splitlines())
    assert "…" in out


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_has_a_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "_now_s", lambda: now)
    stream = io.StringIO()
    with Progress("keys", 1_000, stream) as progress:
        progress.add(10)
        assert stream.getvalue() == ""  # so soon nothing is worth a look
        now = 2.0
        progress.add(190)
        assert stream.getvalue() == "\r200 of 1,000 keys, 100/s, 00:08 left"
        progress.hide()
        assert stream.getvalue().endswith(f"\r{'':36}\r")


def test_progress_without_a_total_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "_now_s", lambda: now)
    stream = io.StringIO()
    progress = Progress("keys", None, stream)
    now = 10.0
    progress.add(50_000)

    assert stream.getvalue() == "\r50,000 keys, 5,000/s"


def test_progress_nobody_can_see_is_counted_all_the_same() -> None:
    progress = Progress("keys", None, None)
    progress.add(3)
    broken = io.StringIO()
    broken.close()
    with Progress("keys", None, broken) as other:
        other.add()
        other._write("x")

    assert (progress.done, other.done) == (3, 1)


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (59.6, "01:00"), (3_601, "1:00:01"), (-5, "00:00")])
def test_a_time_is_read_as_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# -- words ------------------------------------------------------------------------------------------------------------


def test_an_option_may_stand_anywhere_and_be_cut_short(lckv: Lckv, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    assert lckv("set", f"--db={url}", "k", "--coll", "kv", "1").code == 0
    assert lckv("get", "--collection=kv", "k", "--db", url).out == b"1\n"
    assert lckv("get", "k", "--db", url, "--collection", "kv", "--quiet=yes").code == 2
    assert lckv("get", "k", "--db").code == 2
    assert lckv("keys", "--db", url, "--collection", "kv", "-q").out == b"k\n"
    assert lckv("keys", "--db", url, "--collection", "kv", "-x").code == 2


def test_the_last_of_an_option_given_twice_counts(lckv: Lckv, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    assert lckv("set", "k", "1", "--db", "sqlite:wrong.db", "--db", url, "--collection", "kv").code == 0


# -- completion -------------------------------------------------------------------------------------------------------


def completed(lckv: Lckv, *words: str) -> list[str]:
    """Return what bash completes the last word to."""
    script = lckv("completion", "bash").out.decode()
    quoted = " ".join(f"'{word}'" for word in words)
    script += f"\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n_lckv\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    command = ["bash", "--norc", "-c", f"set -e\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_files(lckv: Lckv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token.txt").touch()

    assert completed(lckv, "lckv", "co") == ["count", "collections", "copy", "compact", "completion"]
    assert completed(lckv, "lckv", "get", "k", "--t") == ["--token", "--timeout", "--text"]
    assert completed(lckv, "lckv", "get", "--token", "@tok") == ["@token.txt"]
    assert completed(lckv, "lckv", "backup", "tok") == ["token.txt"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_has_every_command_and_every_option(lckv: Lckv, shell: str) -> None:
    code, out, _ = lckv("completion", shell)
    text = out.decode()

    assert code == 0
    for name in NAMES:
        assert name in text
        for option in (*command_of(name).options, *COMMON):
            assert (f"-l {option.name[2:]} " if shell == "fish" else option.name) in text

"""``lckv`` run in this process, and on a terminal in one of its own."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from termios import TIOCSWINSZ
from typing import NamedTuple

import pytest

from langchain_kv.cli.main import run
from served import LCKV, STRICT, environment

__all__ = ["Lckv", "Outcome", "Terminal", "lckv_in_this_process", "on_a_terminal", "read_terminal", "terminals"]


class Outcome(NamedTuple):
    """What a command printed, and how it ended."""

    code: int
    out: bytes
    error: str


Lckv = Callable[..., Outcome]


class Terminal(NamedTuple):
    """A pseudo-terminal.

    Attributes:
        screen: where what is shown is read.
        end: what a program has as its stream.
    """

    screen: int
    end: int


def lckv_in_this_process(capsysbinary: pytest.CaptureFixture[bytes]) -> Lckv:
    """Return what runs a command in this process, whose output pytest captures."""

    def call(*arguments: str) -> Outcome:
        capsysbinary.readouterr()
        code = run(arguments)
        out, error = capsysbinary.readouterr()
        return Outcome(code, out, error.decode())

    return call


@contextmanager
def terminals(count: int, columns: int = 80) -> Iterator[list[Terminal]]:
    """Open terminals of so many columns."""
    opened = [Terminal(*pty.openpty()) for _ in range(count)]
    for terminal in opened:
        ioctl(terminal.end, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield opened
    finally:
        for terminal in opened:
            os.close(terminal.screen)


def read_terminal(terminals: Sequence[Terminal]) -> list[str]:
    """Return what each shows until nobody has it open any more; our own ends are closed here."""
    for terminal in terminals:
        os.close(terminal.end)
    shown = [bytearray() for _ in terminals]

    def read(number: int) -> None:
        while True:
            try:
                some = os.read(terminals[number].screen, 65_536)
            except OSError:  # EIO: the other end is closed
                return
            if not some:
                return
            shown[number] += some

    readers = [threading.Thread(target=read, args=(number,)) for number in range(len(terminals))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return [bytes(one).decode().replace("\r\n", "\n") for one in shown]


def on_a_terminal(*arguments: str, columns: int = 80, **variables: str) -> tuple[int, str, str]:
    """Run a command with a terminal as stdout and another one as stderr; return its exit code and what each showed."""
    with terminals(2, columns) as (out, error):
        with subprocess.Popen(
            [*LCKV, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out.end,
            stderr=error.end,
            env=environment(**STRICT, **variables),
        ) as process:
            shown = read_terminal([out, error])
    return process.returncode, shown[0], shown[1]

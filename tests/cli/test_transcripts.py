"""What every command prints, on a terminal and piped, is what it printed before."""

from __future__ import annotations

import shlex

import pytest

import transcripts
from langchain_kv.cli.dispatch import NAMES


@pytest.mark.slow
@pytest.mark.parametrize(("name", "on_terminal"), [("terminal.txt", True), ("piped.txt", False)])
def test_every_command_prints_what_it_printed_before(name: str, on_terminal: bool) -> None:
    known = (transcripts.FOLDER / name).read_text("utf-8")

    assert transcripts.transcript(on_terminal=on_terminal) == known, (
        "renew it by `make transcripts`, and look at what changed"
    )


def test_every_command_is_in_the_transcript() -> None:
    words = {shlex.split(line)[1] for line in transcripts.COMMANDS}

    assert words >= set(NAMES)

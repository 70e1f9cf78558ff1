"""pytest in a process of its own: its outcome is what a test is about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["run_pytest", "without_options"]


def without_options() -> dict[str, str]:
    """Return this process's environment without the options that somebody gave to the run of pytest that goes on here,
    as ``--maxfail``, with which a child whose tests are to fail ended early."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=directory, env=without_options(), capture_output=True, text=True, timeout=250, check=False
    )

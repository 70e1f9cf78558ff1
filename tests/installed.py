"""What a test needs of the machine: where it is missing the test is skipped with the reason, and in CI it fails."""

from __future__ import annotations

import os

import pytest


def need(missing: str | None) -> None:
    """Go on where nothing is missing.

    Args:
        missing: what is, and how it is installed; empty or None for nothing.
    """
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing}, and CI must have it")
    if missing:
        pytest.skip(missing)

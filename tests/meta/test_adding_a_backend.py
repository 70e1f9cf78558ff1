"""The backend of CONTRIBUTING.md keeps the contract, and is as short as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def blocks() -> list[str]:
    part = CONTRIBUTING.read_text().partition("## A backend in a hundred lines")[2]
    return re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def test_it_has_a_hundred_lines_at_most() -> None:
    backend, contract = blocks()
    assert 50 < backend.count("\n") <= 120
    assert len([line for line in backend.splitlines() if line.strip()]) <= 100
    assert "class TestJSONFile(BackendContract)" in contract


@pytest.mark.slow
def test_the_contract_passes_on_it(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("\n".join(blocks()))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3_000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 30


@pytest.mark.slow
def test_the_contract_sees_a_backend_that_serves_what_has_expired(tmp_path: Path) -> None:
    backend, contract = blocks()
    broken = backend.replace("return stored if is_alive(stored, now_ms()) else None", "return stored")
    assert broken != backend
    (tmp_path / "test_mine.py").write_text(broken + contract)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "expired", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 1, done.stdout[-3_000:]

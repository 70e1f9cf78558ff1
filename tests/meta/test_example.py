"""The example that ``make run`` runs: it must hold on good input, and notice where something does not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from langchain_kv import AstraDBByteStore

SCRIPT = Path(__file__).parents[2] / "examples" / "stdlib_parents.py"
SOURCES = {"a.py": b"import b\r\n\n" * 400, "pkg/__init__.py": b"", "pkg/b.py": "# ä ☃\n".encode() * 300}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The example over a library of three files, and one that is not UTF-8."""
    spec = importlib.util.spec_from_file_location("stdlib_parents", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    library = tmp_path / "library"
    files = {**SOURCES, "latin.py": b"# \xe9\n", "test/left_out.py": b"x", "pkg/tests/left_out.py": b"x"}
    for name, content in files.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_bytes(content)
    monkeypatch.setattr(module, "standard_library", lambda: library)
    return module


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'kv.db'}"


def faults(example: ModuleType, filled: dict[str, Any], checked: dict[str, Any]) -> list[str]:
    return list(example.faults_of("here", filled, checked))


def test_parents_come_back_whole_and_every_vector_from_the_cache(example: ModuleType, url: str) -> None:
    filled, checked = example.fill(url), example.check(url)

    assert faults(example, filled, checked) == []
    assert filled["parents"] == len(SOURCES)
    assert filled["skipped"] == 1
    assert filled["embedded"] == filled["chunks"] > 3
    assert checked["embedded"] == 0


def test_a_parent_that_differs_from_its_file_is_noticed(example: ModuleType, url: str) -> None:
    filled = example.fill(url)
    (example.standard_library() / "a.py").write_bytes(b"changed")

    assert faults(example, filled, example.check(url)) == ["here: 1 parents differ from their files"]


def test_a_parent_that_is_lost_is_noticed(example: ModuleType, url: str) -> None:
    filled = example.fill(url)
    with AstraDBByteStore("parents", api_endpoint=url) as parents:
        parents.mdelete(["pkg/b.py"])

    assert "here: 3 parents were kept, 2 came back" in faults(example, filled, example.check(url))


def test_a_vector_that_is_lost_is_noticed(example: ModuleType, url: str) -> None:
    filled = example.fill(url)
    with AstraDBByteStore("vectors", api_endpoint=url) as vectors:
        vectors.mdelete([next(iter(vectors.yield_keys()))])

    assert faults(example, filled, example.check(url)) == ["here: 1 texts were embedded again"]


def test_a_vector_that_is_another_is_noticed(example: ModuleType, url: str) -> None:
    filled = example.fill(url)
    with AstraDBByteStore("vectors", api_endpoint=url) as vectors:
        key, value = next(iter(vectors.yield_items()))
        vectors.mset([(key, value[:8] + bytes(len(value) - 8))])  # of zeros

    found = faults(example, filled, example.check(url))

    assert found == ["here: the vectors that came back are not those that were cached"]


def test_both_caches_are_compared(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factors = example.show_factors(tmp_path, 20)

    assert factors.keys() == {"to keep", "to read", "room"}
    assert min(factors.values()) > 0
    assert "CacheBackedEmbeddings takes (20 vectors" in capsys.readouterr().out


def test_the_vectors_have_256_numbers_and_length_1(example: ModuleType) -> None:
    model = example.FeatureHashing()
    (vector,) = model.embed_documents(["one two one"])

    assert len(vector) == 256
    assert sum(number * number for number in vector) == pytest.approx(1)
    assert model.texts_embedded == 1

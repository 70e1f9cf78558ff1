"""A process that embeds is killed in the midst: what was embedded before is in the cache, but for one batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedding_models import Model, vector_of
from langchain_kv import EmbeddingCache

BATCHES, SIZE = 50, 20
TEXTS = [f"text {number}" for number in range(BATCHES * SIZE)]

EMBEDS = f"""
import json, sys
sys.path.insert(0, sys.argv[2])
from embedding_models import Model
from langchain_kv import EmbeddingCache

model = Model()
model.during = lambda texts: print(json.dumps(texts), flush=True)
EmbeddingCache(model, sys.argv[1], batch_size={SIZE}).embed_documents([f"text {{n}}" for n in range({len(TEXTS)})])
"""


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 25, 49])
def test_at_most_one_batch_is_embedded_again_after_a_kill(tmp_path: Path, batches: int) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    command = [sys.executable, "-c", EMBEDS, url, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        embedded = [json.loads(killed.stdout.readline()) for _ in range(batches)]
        killed.kill()
        embedded += [json.loads(line) for line in killed.stdout if line.endswith("\n")]
    before = {text for batch in embedded for text in batch}
    model = Model()
    with EmbeddingCache(model, url, batch_size=SIZE) as cache:
        assert cache.embed_documents(TEXTS) == [vector_of(text) for text in TEXTS]

    assert len(before.intersection(model.texts)) <= SIZE
    assert len(before) >= batches * SIZE

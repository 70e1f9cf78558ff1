"""Embed each text once: a cache of vectors in a file, so that the next process asks the model for what is new only.

``python examples/embedding_cache.py`` keeps the vectors in a file of its own; give another URL to keep them there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_kv import EmbeddingCache

TEXTS = ["The sea is wide.", "The waves are tall.", "The sea is wide."]
MORE = [*TEXTS, "The gulls cry."]


def embed(url: str, texts: list[str]) -> str:
    """Embed texts and a query, and say what the model itself was asked for."""
    model = DeterministicFakeEmbedding(size=256)  # stands for your own
    with EmbeddingCache(model, url, name="fake-256") as cache:
        assert cache.embed_documents(texts) == model.embed_documents(texts)
        cache.embed_query("Is the sea wide?")
        counts = cache.stats()
    return f"{len(texts)} texts and a query: {counts.hits} from the cache, {counts.embedded} from the model"


def main(url: str) -> None:
    print("first:", embed(url, TEXTS))
    command = [sys.executable, __file__, "embed", url, *MORE]
    print("a new process:", subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


if __name__ == "__main__":
    if sys.argv[1:2] == ["embed"]:
        print(embed(sys.argv[2], sys.argv[3:]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:{Path(directory, 'vectors.db')}")

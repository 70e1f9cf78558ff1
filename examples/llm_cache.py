"""Ask a model once: LangChain's cache of answers in a file, so that the next process asks nothing again.

``python examples/llm_cache.py`` keeps the answers in a file of its own; give another URL to keep them there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel

from langchain_kv import KVCache


class Model(FakeListChatModel):
    """Stands for your own model, and counts how often it is asked."""

    asked: ClassVar[int] = 0

    def _call(self, *arguments: Any, **named: Any) -> str:
        Model.asked += 1
        return super()._call(*arguments, **named)


def ask(url: str) -> str:
    """Ask a question, and say how often the model itself was asked in this process."""
    with KVCache("llm_cache", url, ttl_s=7 * 24 * 3600) as cache:
        set_llm_cache(cache)
        answer = Model(responses=["two"]).invoke("What is 1 + 1?").content
        return f"{answer}; the model was asked {Model.asked} times"


def main(url: str) -> None:
    print("first:", ask(url))
    command = [sys.executable, __file__, "ask", url]
    print("a new process:", subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    with KVCache("llm_cache", url) as cache:
        cache.clear()
    print("after clear:", ask(url))


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(ask(*sys.argv[2:]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:{Path(directory, 'answers.db')}")

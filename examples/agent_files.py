"""An agent with files that stay: deepagents' StoreBackend over LangGraphStore, read by the agent of the next process.

``python examples/agent_files.py`` keeps the files in a file of its own; give another URL to keep them there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deepagents import create_deep_agent
from deepagents.backends import StoreBackend
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_kv import LangGraphStore


class Model(BaseChatModel):
    """Stands for your own model: it does what it is told, one tool call, and repeats what the tool says."""

    call: ToolCall

    @property
    def _llm_type(self) -> str:
        return "example"

    def bind_tools(self, tools: Any, **named: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *arguments: Any, **named: Any) -> ChatResult:
        last = messages[-1]
        answer = AIMessage(last.content) if isinstance(last, ToolMessage) else AIMessage("", tool_calls=[self.call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


def work(url: str, tool: str, **arguments: str) -> str:
    """Have an agent use one of its tools for files; return what it says in the end."""
    with LangGraphStore(url) as store:
        files = StoreBackend(store=store, namespace=lambda _: ("files", "ada"))
        agent = create_deep_agent(Model(call=ToolCall(name=tool, args=arguments, id="1")), backend=files)
        answer = agent.invoke({"messages": [{"role": "user", "content": "Go on."}]})
        return str(answer["messages"][-1].text)


def read_in_new_process(url: str) -> str:
    command = [sys.executable, __file__, "read", url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(url: str) -> None:
    print("first:", work(url, "write_file", file_path="/notes/dishes.md", content="pizza: good\nsoup: not so\n"))
    print("a new process:", read_in_new_process(url))


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        print(work(sys.argv[2], "grep", pattern="pizza", output_mode="content").replace("\n", " "))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:{Path(directory, 'files.db')}")

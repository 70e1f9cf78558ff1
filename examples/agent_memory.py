"""An agent that remembers: LangGraph's long-term memory in a file, so that the agent of the next process knows it all.

``python examples/agent_memory.py`` keeps the memories in a file of its own; give another URL to keep them there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_kv import LangGraphStore


@dataclass
class User:
    name: str


@tool
def remember(about: str, what: str, runtime: ToolRuntime[User]) -> str:
    """Remember something about the user."""
    assert runtime.store
    runtime.store.put(("users", runtime.context.name), about, {"what": what})
    return "It is noted."


@tool
def recall(about: str, runtime: ToolRuntime[User]) -> str:
    """Say what is known about the user."""
    assert runtime.store
    item = runtime.store.get(("users", runtime.context.name), about)
    return item.value["what"] if item else "Nothing is known."


class Model(BaseChatModel):
    """Stands for your own model: it calls a tool for what it is told or asked, and repeats what the tool says."""

    @property
    def _llm_type(self) -> str:
        return "example"

    def bind_tools(self, tools: Any, **named: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *arguments: Any, **named: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            answer = AIMessage(last.content)
        else:
            about, _, what = last.text.removeprefix("My ").rstrip(".").partition(" is ")
            call = ("remember", {"about": about, "what": what}) if what else ("recall", {"about": "favourite dish"})
            answer = AIMessage("", tool_calls=[{"name": call[0], "args": call[1], "id": "1"}])
        return ChatResult(generations=[ChatGeneration(message=answer)])


def say(url: str, name: str, text: str) -> str:
    """Have a user say something to the agent; return its answer."""
    with LangGraphStore(url) as store:
        agent = create_agent(Model(), [remember, recall], store=store, context_schema=User)
        answer = agent.invoke({"messages": [{"role": "user", "content": text}]}, context=User(name))
        return str(answer["messages"][-1].text)


def say_in_new_process(url: str, name: str, text: str) -> str:
    command = [sys.executable, __file__, "say", url, name, text]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(url: str) -> None:
    print("first:", say(url, "ada", "My favourite dish is pizza."))
    print("a new process:", say_in_new_process(url, "ada", "What do I like?"))
    print("another user:", say_in_new_process(url, "bob", "What do I like?"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["say"]:
        print(say(*sys.argv[2:]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:{Path(directory, 'memories.db')}")

"""Replay recorded cases over HTTP, and say which steps are answered in another way than by the real Data API."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DATA = Path(__file__).parents[1] / "data" / "dataapi"
TOKEN = "correct horse"
COLLECTIONS = {"kv": {"indexing": {"allow": ["_id"]}}, "any": {}}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Answer(NamedTuple):
    status: int
    content_type: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Result(NamedTuple):
    """Of the steps of a family: how many were compared, and which differ."""

    compared: int
    differing: list[str]


class Client:
    """One connection that is kept open."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type"), response.read())

    def command(self, path: str, command: dict[str, Any] | bytes) -> Answer:
        body = command if isinstance(command, bytes) else json.dumps(command).encode()
        return self.request("POST", path, body, {"Token": TOKEN, "Content-Type": "application/json"})

    def close(self) -> None:
        self._connection.close()


def cases(family: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{family}.jsonl").read_text().splitlines()]


def create_collections(client: Client) -> None:
    for name, options in COLLECTIONS.items():
        command = {"createCollection": {"name": f"corpus_{name}", "options": options}}
        assert client.command("/v1/default_keyspace", command).json == {"status": {"ok": 1}}


def replay(
    client: Client, family: str, empty: Callable[[str], None] | None = None, *, by_token: bool = False
) -> Result:
    """Replay the cases of a family.

    Args:
        client: of the server that is tried.
        family: one of the recorded ones.
        empty: empties a collection of this name before a case; without it, the server's own command does.
        by_token: whether documents have to come in the recorded order even where none is promised: that of tokens.
    """
    compared = 0
    differing = []
    for case in cases(family):
        name = f"corpus_{case['collection']}"
        path = f"/v1/default_keyspace/{name}"
        if case["collection"] and empty is not None:
            empty(name)
        elif case["collection"]:
            assert client.command(path, {"deleteMany": {}}).json == {"status": {"deletedCount": -1}}
        for number, step in enumerate(case["steps"]):
            answer = _send_http(client, step) if "method" in step else _send(client, step.get("path", path), step)
            compared += 1
            difference = _difference(step, answer)
            if by_token and not difference and _difference({**step, "ordered": True}, answer):
                difference = "documents in another order"
            if difference:
                differing.append(f"{family}, {case['name']}, step {number}: {difference}")
    return Result(compared, differing)


def _send(client: Client, path: str, step: dict[str, Any]) -> Answer:
    if "raw" in step:
        return client.command(path, step["raw"].replace("<x*size>", "x" * step.get("size", 0)).encode())
    if not step.get("pages"):
        return client.command(path, step["send"])
    documents, pages, state = [], [], None
    while True:
        send = json.loads(json.dumps(step["send"]))
        if state is not None:
            send["find"].setdefault("options", {})["pageState"] = state
        answer = client.command(path, send)
        if "data" not in answer.json:
            return answer
        documents += answer.json["data"]["documents"]
        pages.append(len(answer.json["data"]["documents"]))
        state = answer.json["data"]["nextPageState"]
        if state is None:
            return answer._replace(body=json.dumps({"documents": documents, "pages": pages}).encode())


def _send_http(client: Client, step: dict[str, Any]) -> Answer:
    token = {"good": TOKEN, "bad": "wrong"}.get(step["token"], step["token"])
    headers = {"Token": token} if token is not None else {}
    headers |= {name: value.replace("<good>", TOKEN) for name, value in step.get("headers", {}).items()}
    body = None if step["raw"] is None else step["raw"].encode()
    if step["raw"] == "<padded>":
        body = b'{"findOne":{}}'.ljust(step["bytes"])
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    return client.request(step["method"], step["path"], body, headers)


def _difference(step: dict[str, Any], answer: Answer) -> str | None:
    if answer.status != step["http"]:
        return f"HTTP {answer.status} for {step['http']}"
    if "content_type" in step and answer.content_type != step["content_type"]:
        return f"Content-Type {answer.content_type} for {step['content_type']}"
    wanted = step["reply"]
    if isinstance(wanted, str):  # recorded as text
        wanted = json.loads(wanted) if wanted else {"_text": ""}
    if "_text" in wanted:
        return None if wanted["_text"] == "..." or not answer.body else "a body for none"
    given = answer.json
    send = step.get("send", {})
    is_unordered = not (send.get("insertMany", {}).get("options") or {}).get("ordered")
    if not _equal(_normal(wanted, step, is_unordered), _normal(given, step, is_unordered)):
        return f"{json.dumps(given)[:300]} for {json.dumps(wanted)[:300]}"
    return None


def _normal(reply: Any, step: dict[str, Any], is_unordered: bool) -> Any:
    """Return a reply without what may differ: texts and ids of errors, and orders that are not promised."""
    reply = json.loads(json.dumps(reply))
    if "errors" in reply:
        reply["errors"] = [
            {name: error[name] for name in ("errorCode", "family", "scope")} for error in reply["errors"]
        ]
    status = reply.get("status", {})
    if not isinstance(status, dict):  # a health check's
        return reply
    for warning in status.get("warnings", []):
        for name in ("id", "message", "title"):
            warning.pop(name)
    if is_unordered:
        for part, name in ((status, "documentResponses"), (status, "insertedIds"), (reply, "errors")):
            if name in part:
                part[name] = _sorted(part[name])
    if step.get("ordered") is False or ("ordered" not in step and step.get("pages")):
        part = reply if "pages" in reply else reply.get("data", {})
        if "documents" in part:
            part["documents"] = _sorted(part["documents"])
    if "collections" in status:
        status["collections"] = _sorted(status["collections"])
    return reply


def _sorted(values: list[Any]) -> list[Any]:
    return sorted(values, key=lambda value: json.dumps(value, sort_keys=True))


def _equal(wanted: Any, given: Any) -> bool:
    """Whether two JSON values are equal, with the recording's placeholders; 1 and 1.0 are, 1 and true are not."""
    if wanted == "<id>" or (isinstance(wanted, str) and UUID.fullmatch(wanted) and wanted != given):
        return isinstance(given, str) and UUID.fullmatch(given) is not None
    if wanted == ["<keyspaces>"]:
        return isinstance(given, list) and "corpus_ks" in given
    if isinstance(wanted, dict) and isinstance(given, dict):
        return wanted.keys() == given.keys() and all(_equal(wanted[name], given[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(_equal, wanted, given))
    if isinstance(wanted, bool) or isinstance(given, bool):
        return wanted is given
    return wanted == given

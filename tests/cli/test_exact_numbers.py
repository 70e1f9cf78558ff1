"""``lckv get`` and ``items`` print the numbers of others as they are kept, and not their nearest floats."""

from __future__ import annotations

import json
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from langchain_kv import BackendOptions, Kind, Record
from langchain_kv.cli.showing import shown_in_line, shown_to_people
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import DataAPIServer
from running import Lckv

KV = ("--collection", "kv")
LONG = "0.1000000000000000055511151231257827"
TEXT = f'{{"n": {LONG}, "m": [12345678901234567890123, -1E+400, 0.1, 1.5], "s": "{LONG}"}}'


def put(url: str, *records: Record, token: str | None = None) -> None:
    with closing(parse_url(url).open(BackendOptions("kv", "default_keyspace", token))) as backend:
        backend.open()
        backend.put_many(records)


def test_every_digit_is_printed(lckv: Lckv, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/kv.db"
    put(url, Record("a", TEXT.encode()), Record("b", b"1"))
    where = ("--db", url, *KV)

    assert lckv("get", "a", *where).out.decode() == f"{TEXT}\n"
    assert lckv("get", "a", "--json", *where).out.decode() == f'{{"key": "a", "value": {TEXT}}}\n'
    rows = f'{{"key": "a", "value": {TEXT}}}\n{{"key": "b", "value": 1}}\n'
    assert lckv("get", "a", "b", *where).out.decode() == rows
    assert lckv("items", *where).out.decode() == rows


def test_every_digit_is_printed_beside_half_of_a_surrogate_pair(lckv: Lckv, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/kv.db"
    text = f'[{LONG}, "\\ud800"]'
    put(url, Record("a", text.encode(), Kind.TEXT))

    assert lckv("get", "a", "--db", url, *KV).out.decode() == f"{text}\n"


@pytest.mark.parametrize("command", ["get a", "items"])
def test_every_digit_is_printed_of_what_a_data_api_has(
    lckv: Lckv, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    with DataAPIServer() as server:
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
        put(server.url, Record("a", f"[{LONG}, 12345678901234567890123]".encode()), token=server.token)
        out = lckv(*command.split(), "--db", server.url, *KV).out.decode()

    assert f"[{LONG}, 12345678901234567890123]" in out


def test_every_digit_is_shown_to_people() -> None:
    document = {"page_content": "text", "metadata": {"n": Decimal(LONG)}, "score": Decimal(LONG)}

    assert shown_to_people(None, {"n": Decimal(LONG)}) == f'{{\n  "n": {LONG}\n}}'
    assert shown_in_line([Decimal(LONG)]) == f"[{LONG}]"
    assert shown_to_people(None, document) == f"score: {LONG}\nmetadata.n: {LONG}\n\ntext"


def test_what_is_printed_is_what_is_kept(lckv: Lckv, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/kv.db"
    numbers = ["0.1", "1e23", "5e-324", "1e-400", "123456789012345678.5", "-0.0", "2.50", "1E5"]
    put(url, Record("a", f"[{','.join(numbers)}]".encode()))
    printed = json.loads(lckv("get", "a", "--db", url, *KV).out, parse_float=Decimal)

    assert printed == [Decimal(number) for number in numbers]

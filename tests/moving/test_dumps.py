"""Dumps: what comes back is what was there, and what is cut, changed or of another form is told."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from langchain_kv import Backend, Damaged, Kind, Record, StoreError, Wrapper
from langchain_kv.backends.base import Found, Stored
from langchain_kv.errors import EngineFileError
from langchain_kv.moving.copying import pages_of
from langchain_kv.moving.dumps import Dump, dump_values
from langchain_kv.moving.loading import Loaded, check_dump, load_values
from langchain_kv.moving.tally import Tally
from langchain_kv.moving.writing import OnExists, Writer
from moving_values import Open, contents, records

GOOD = Loaded("", False)


def dumped(source: Backend, prefix: str = "") -> bytes:
    out = io.BytesIO()
    dump_values(pages_of(source, prefix), out.write, {"collection": "kv"}, Tally())
    return out.getvalue()


def loaded(dump: bytes, target: Backend, on_exists: OnExists = OnExists.FAIL, **how: Any) -> tuple[Loaded, Tally]:
    writer = Writer(target, on_exists)
    return load_values(Dump(io.BytesIO(dump)), writer, **how), writer.tally


@pytest.mark.parametrize("kind", ["memory", "sqlite", "sql", "http"])
def test_values_of_every_kind_come_back_with_their_expiry(opened: Open, kind: str) -> None:
    source, target = opened("sqlite"), opened(kind)
    source.put_many(records(1_234))
    result, tally = loaded(dumped(source), target)

    assert (result, tally.written) == (GOOD, 1_234)
    assert contents(target) == contents(source)


def test_a_dump_is_read_by_people_and_other_programs(opened: Open) -> None:
    source = opened()
    source.put_many([Record("ä", b'{"n":1}'), Record("b", b"\0", Kind.BYTES), Record("c", b'"x"', Kind.BODY_BLOB)])
    lines = [json.loads(line) for line in dumped(source).splitlines()]

    assert lines[0] == {"lckv": 1, "collection": "kv"}
    assert sorted(lines[1:-1], key=lambda line: str(line["key"])) == [
        {"key": "b", "kind": "bytes", "value": "AA=="},
        {"key": "c", "kind": "body_blob", "value": "x"},
        {"key": "ä", "kind": "json", "value": {"n": 1}},
    ]
    assert lines[-1] == {"end": True, "count": 3, "sha256": lines[-1]["sha256"]}


def test_an_empty_collection_is_a_whole_dump(opened: Open) -> None:
    result, tally = loaded(dumped(opened()), opened())

    assert (result, tally.read) == (GOOD, 0)


def test_only_keys_with_the_prefix_are_dumped_or_loaded(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many([Record("a1", b"1"), Record("a2", b"1"), Record("b", b"1")])
    result, tally = loaded(dumped(source), target, prefix="a")

    assert (result, tally.read, sorted(contents(target))) == (GOOD, 2, ["a1", "a2"])
    assert dumped(source, "b").count(b"\n") == 3


# -- what is wrong with a dump ----------------------------------------------------------------------------------------


def test_every_cut_of_a_dump_is_told_and_the_whole_lines_are_loaded(opened: Open) -> None:
    source = opened()
    source.put_many(records(28))
    dump = dumped(source)
    all_there = contents(source)
    first = dump.index(b"\n") + 1
    for end in {first, first + 1, len(dump) // 2, len(dump) - 10, dump.rindex(b"\n", 0, -1) + 1, len(dump) - 2}:
        target = opened()
        result, tally = loaded(dump[:end], target)

        assert result.is_cut
        assert "cut off" in result.problem
        assert tally.written == dump[:end].count(b"\n") - 1
        assert contents(target).items() <= all_there.items()


def test_a_dump_whose_last_line_end_is_missing_is_whole(opened: Open) -> None:
    source = opened()
    source.put_many(records(3))

    assert loaded(dumped(source)[:-1], opened())[0] == GOOD


def test_any_changed_byte_is_found(opened: Open) -> None:
    source = opened()
    source.put_many(records(14))
    dump = dumped(source)
    for at in range(len(dump)):
        changed = dump[:at] + bytes([dump[at] ^ 1]) + dump[at + 1 :]
        try:
            result, _ = loaded(changed, opened(), OnExists.REPLACE)
        except EngineFileError:  # its first line
            assert at < dump.index(b"\n") + 1
            continue
        assert result.problem, (at, changed)


def test_a_changed_dump_is_refused_before_anything_is_loaded(opened: Open) -> None:
    source = opened()
    source.put_many([Record("a", b"1111")])
    dump = dumped(source)
    with pytest.raises(EngineFileError, match="SHA-256"):
        check_dump(io.BytesIO(dump.replace(b"1111", b"1112")))
    with pytest.raises(EngineFileError, match="more after its last line"):
        check_dump(io.BytesIO(dump + b"{}\n"))
    with pytest.raises(EngineFileError, match="speaks of 1 values"):
        check_dump(io.BytesIO(dump.splitlines(keepends=True)[0] + dump.splitlines(keepends=True)[2]))
    file = io.BytesIO(dump)
    check_dump(file)

    assert file.tell() == 0


def test_one_that_is_cut_off_passes_the_check_as_what_is_there_can_be_loaded(opened: Open) -> None:
    check_dump(io.BytesIO(b'{"lckv":1}\n{"key":"a","kind":"json","value":1}\n'))


@pytest.mark.parametrize("first", [b"", b"\n", b"[]", b'{"lckv":"1"}', b'{"lckv":true}', b'{"lckv":0}', b"\x80", b"{}"])
def test_what_is_no_dump_is_refused(first: bytes) -> None:
    with pytest.raises(EngineFileError, match="no dump"):
        Dump(io.BytesIO(first + b'\n{"key":"a","kind":"json","value":1}\n'))


def test_a_dump_of_a_newer_form_is_refused_with_what_to_do() -> None:
    with pytest.raises(EngineFileError, match=r"of form 2.*update langchain-kv"):
        Dump(io.BytesIO(b'{"lckv":2}\n'))


def test_what_a_header_says_beside_its_form_is_passed_over_if_unknown(opened: Open) -> None:
    dump = Dump(io.BytesIO(b'{"lckv":1,"new":[1]}\n{"key":"a","kind":"json","value":1,"new":2}\n'))

    assert list(dump.pages()) == [[("a", Found(1))]]


@pytest.mark.parametrize(
    ("line", "key", "why"),
    [
        (b"nonsense", "line 2", "not a JSON object"),
        (b'{"kind":"json","value":1}', "line 2", "no key"),
        (b'{"key":1,"kind":"json","value":1}', "line 2", "no key"),
        (b'{"key":"a","kind":"json"}', "a", "no value"),
        (b'{"key":"a","kind":"new","value":1}', "a", "kind is 'new'"),
        (b'{"key":"a","value":1}', "a", "kind is None"),
        (b'{"key":"a","kind":["x"],"value":1}', "a", "kind is"),
        (b'{"key":"a","kind":"bytes","value":"x"}', "a", "base64"),
        (b'{"key":"a","kind":"bytes","value":null}', "a", "base64"),
        (b'{"key":"a","kind":"json","value":1,"expires_at":true}', "a", "expires_at"),
        (b'{"key":"a","kind":"json","value":1,"expires_at":"x"}', "a", "expires_at"),
    ],
)
def test_a_line_that_is_no_value_is_told_and_the_others_are_loaded(
    opened: Open, line: bytes, key: str, why: str
) -> None:
    target = opened()
    _, tally = loaded(b'{"lckv":1}\n%b\n{"key":"b","kind":"json","value":2}\n' % line, target)

    assert list(contents(target)) == ["b"]
    assert tally.failed == 1
    assert why in tally.reasons[key]


@pytest.mark.parametrize("moment", [253_402_300_800_000, 10**17, 2**63, 2**70])
def test_a_moment_after_the_year_9999_is_for_ever(opened: Open, moment: int) -> None:
    target = opened()
    lines = b'{"lckv":1}\n{"key":"k","kind":"json","value":1,"expires_at":%d}\n' % moment
    for counts in ({"written": 1}, {"same": 1}):
        _, tally = loaded(lines, target)
        assert tally.counts.items() >= counts.items()

    assert target.get_many(["k"]) == [Found(1, Kind.JSON)]


def test_the_last_of_the_lines_of_one_key_wins(opened: Open) -> None:
    target = opened()
    lines = b"".join(b'{"key":"a","kind":"json","value":%d}\n' % number for number in range(3))
    _, tally = loaded(b'{"lckv":1}\n' + lines, target, OnExists.REPLACE)

    assert target.get_many(["a"]) == [Found(2)]
    assert (tally.written, tally.replaced) == (1, 2)


@pytest.mark.parametrize("on_exists", list(OnExists))
@pytest.mark.parametrize("batch", [1, 10])
def test_a_dry_run_of_a_dump_with_repeats_says_what_the_real_run_does(
    opened: Open, on_exists: OnExists, batch: int
) -> None:
    lines = [("a", 1), ("b", 1), ("a", 1), ("a", 2), ("c", 2), ("a", 2), ("a", 1)]
    dump = b'{"lckv":1}\n' + b"".join(b'{"key":"%s","kind":"json","value":%d}\n' % (k.encode(), v) for k, v in lines)
    target = opened()
    target.put_many([Record("c", b"1")])
    told = []
    for dry_run in (True, False):
        writer = Writer(target, on_exists, may_repeat=True, dry_run=dry_run)
        try:
            load_values(Dump(io.BytesIO(dump)), writer, batch=batch)
        except StoreError as error:
            told.append((str(error), writer.tally.counts))
        else:
            told.append(("", writer.tally.counts))

    assert told[0] == told[1]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_kv.moving.dumps.LINE_MAX_BYTES", 100)
    dump = Dump(io.BytesIO(b'{"lckv":1}\n' + b"x" * 1_000))
    with pytest.raises(EngineFileError, match="longer than 100 bytes"):
        list(dump.pages())


class Rotten(Wrapper):
    """Of which some values cannot be read."""

    def outwards(self, key: str, found: Found) -> Stored:
        return Damaged("rotten") if key == "b" else found


def test_what_is_damaged_is_left_out_of_a_dump_which_is_whole(opened: Open) -> None:
    source, target = Rotten(opened()), opened()
    source.put_many([Record(key, b"1") for key in "abc"])
    out = io.BytesIO()
    tally = Tally()
    dump_values(pages_of(source, ""), out.write, {}, tally)

    assert (tally.read, tally.written, tally.failed, tally.reasons) == (3, 2, 1, {"b": "rotten"})
    assert loaded(out.getvalue(), target)[0] == GOOD
    assert sorted(contents(target)) == ["a", "c"]


def test_what_was_loaded_before_an_error_is_counted(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many([Record(key, b"1") for key in "abcd"])
    target.put_many([Record("c", b"2")])
    writer = Writer(target, OnExists.FAIL)
    with pytest.raises(StoreError, match="'c' is there already"):
        load_values(Dump(io.BytesIO(dumped(source))), writer, batch=2)

    assert writer.tally.written == 2

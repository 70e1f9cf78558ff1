"""Copies: nothing is lost or changed whatever lies between, and one that ended too early goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_kv import Backend, ConfigError, Found, Kind, Record, StoreError, Wrapper
from langchain_kv.backends.wrappers import Prefixed
from langchain_kv.errors import ConnectError, DocumentExistsError, EngineFileError, InvalidValueError, PartialWriteError
from langchain_kv.moving.checkpoints import Checkpoint
from langchain_kv.moving.copying import copy_values
from langchain_kv.moving.tally import FAILURES_MAX, Pace, Tally
from langchain_kv.moving.writing import OnExists, Writer
from langchain_kv.runtime.clock import now_ms
from moving_values import Open, contents, records

COPY = {"from": "sqlite:a", "to": "sqlite:b"}


def copied(source: Backend, target: Backend, on_exists: OnExists = OnExists.FAIL, **how: Any) -> dict[str, int]:
    writer = Writer(target, on_exists)
    copy_values(source, writer, **how)
    return writer.tally.counts


@pytest.mark.parametrize("way", [["sqlite"], ["sql"], ["http"], ["http", "sql", "http", "sqlite"]], ids="-".join)
def test_values_of_every_kind_come_through_with_their_expiry(opened: Open, way: list[str]) -> None:
    first = source = opened()
    source.put_many(records(70))
    for kind in way:
        target = opened(kind)
        copied(source, target)
        source = target

    assert contents(source) == contents(first)


def test_bytes_that_a_store_wrote_over_http_are_text_unless_it_is_said(opened: Open) -> None:
    source = opened("http")
    source.put_many([Record("a", b"\x00", Kind.BYTES), Record("b", b"null"), Record("c", b'"no base64"')])
    plain, said = opened(), opened()
    copied(source, plain)
    counts = copied(source, said, bytes_only=True)

    assert plain.get_many(["a"]) == [Found("AA==", Kind.JSON)]
    assert contents(said) == {"a": (Kind.BYTES, b"\x00", None), "b": (Kind.JSON, None, None)}
    assert (counts["failed"], counts["written"]) == (1, 2)


def test_only_keys_with_the_prefix_are_copied_and_nothing_is_deleted(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many([Record("a1", b"1"), Record("a2", b"2"), Record("b", b"3")])
    target.put_many([Record("a3", b"3")])
    copied(source, target, prefix="a")

    assert sorted(contents(target)) == ["a1", "a2", "a3"]


def test_what_is_there_equal_is_left_and_the_rest_is_done_as_said(opened: Open) -> None:
    source = opened()
    source.put_many([Record("same", b'{"a":1}'), Record("other", b"true"), Record("new", b"3")])
    expected = {
        OnExists.SKIP: (1, {"read": 3, "written": 1, "replaced": 0, "same": 1, "skipped": 1, "failed": 0}),
        OnExists.REPLACE: (True, {"read": 3, "written": 1, "replaced": 1, "same": 1, "skipped": 0, "failed": 0}),
    }
    for on_exists, (value, counts) in expected.items():
        target = opened()
        target.put_many([Record("same", b'{"a": 1}'), Record("other", b"1")])

        assert copied(source, target, on_exists) == counts
        assert target.get_many(["other"])[0].value is value  # type: ignore[union-attr]


def test_another_expiry_is_another_value(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many([Record("a", b"1", Kind.JSON, now_ms() + 100_000)])
    target.put_many([Record("a", b"1")])

    assert copied(source, target, OnExists.REPLACE)["replaced"] == 1
    assert contents(target) == contents(source)


def test_a_key_that_is_to_fail_ends_the_copy_and_its_batch_is_not_written(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many([Record(key, b"1") for key in "abcd"])
    target.put_many([Record("d", b"2")])
    with pytest.raises(DocumentExistsError, match="'d' is there already"):
        copied(source, target, batch=2)

    assert sorted(contents(target)) == ["a", "b", "d"]


def test_a_dry_run_counts_and_writes_nothing(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many([Record("a", b"1"), Record("b", b"1")])
    target.put_many([Record("a", b"2")])
    before = contents(target)
    writer = Writer(target, OnExists.REPLACE, dry_run=True)
    copy_values(source, writer)

    assert (writer.tally.written, writer.tally.replaced, contents(target)) == (1, 1, before)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "http", "sql"])
def test_a_dry_run_counts_what_the_real_run_does(opened: Open, kind: str) -> None:
    source, target = opened("sql"), opened(kind)
    large = b'"%s"' % (b"x" * 4_000_000)
    source.put_many([Record("a", b"1"), Record("b", large), Record("c", b"2"), Record("", b"3")])
    told = []
    for dry_run in (True, False):
        writer = Writer(Prefixed(target, "p"), OnExists.FAIL, dry_run=dry_run)
        copy_values(source, writer)
        told.append((writer.tally.counts, writer.tally.reasons))

    assert told[0] == told[1]
    assert (told[0][0]["failed"] == 0) == (kind == "sql")


# -- what the target refuses, and what is damaged ----------------------------------------------------------------------


class Picky(Wrapper):
    """Refuses some keys, as a target with another limit does: the whole batch, and nothing of it is written."""

    refused: Sequence[str] = ()

    def put_many(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.key in self.refused:
                raise InvalidValueError(f"no {record.key}")
        super().put_many(records)


def test_a_value_that_the_target_refuses_is_told_and_the_others_are_written(opened: Open) -> None:
    source, target = opened(), Picky(opened())
    source.put_many(records(100))
    keys = [record.key for record in records(100)]
    target.refused = keys[7], keys[50]
    writer = Writer(target, OnExists.FAIL)
    copy_values(source, writer)

    assert writer.tally.counts | {"read": 100, "written": 98, "failed": 2} == writer.tally.counts
    assert writer.tally.reasons == {keys[7]: f"no {keys[7]}", keys[50]: f"no {keys[50]}"}
    assert len(contents(target)) == 98


def test_a_target_that_takes_nothing_is_given_up(opened: Open) -> None:
    source, target = opened(), Picky(opened())
    source.put_many(records(FAILURES_MAX + 500))
    target.refused = [record.key for record in records(FAILURES_MAX + 500)]
    with pytest.raises(StoreError, match="1,000 values failed"):
        copied(source, target)


def test_keys_that_the_target_has_not_are_told(opened: Open) -> None:
    source, target = opened("sql"), opened("sqlite")
    source.put_many([Record("", b"1"), Record("a", b"2")])
    writer = Writer(target, OnExists.FAIL)
    copy_values(source, writer)

    assert sorted(contents(target)) == ["a"]
    assert "must not be empty" in writer.tally.reasons[""]


class Broken(Wrapper):
    """Fails when it is asked to write some key, and tells what of the batch it wrote."""

    fails_at = ""

    def put_many(self, records: Sequence[Record]) -> None:
        keys = [record.key for record in records]
        if self.fails_at not in keys:
            super().put_many(records)
            return
        at = keys.index(self.fails_at)
        super().put_many(records[:at])
        error = ConnectError("gone")
        raise PartialWriteError.of(
            "stored", written=tuple(keys[:at]), unwritten=tuple(keys[at:]), unknown=(), errors={self.fails_at: error}
        )


def test_what_was_written_is_counted_when_the_target_fails(opened: Open) -> None:
    source, target = opened(), Broken(opened())
    source.put_many([Record(key, b"1") for key in "abcdef"])
    target.fails_at = "d"
    writer = Writer(target, OnExists.FAIL)
    with pytest.raises(PartialWriteError):
        copy_values(source, writer, batch=2)

    assert writer.tally.written == 3
    assert sorted(contents(target)) == ["a", "b", "c"]


# -- going on ---------------------------------------------------------------------------------------------------------


class Seen(Wrapper):
    """Notes which keys were read."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.keys: list[str] = []

    def outwards(self, key: str, found: Found) -> Found:
        self.keys.append(key)
        return found


@pytest.mark.parametrize("kind", ["memory", "sqlite", "sql"])
def test_a_copy_goes_on_behind_the_last_key_that_was_acknowledged(opened: Open, tmp_path: Path, kind: str) -> None:
    source, target = Seen(opened(kind)), Broken(opened())
    source.put_many([Record(key, b"1") for key in "abcdef"])
    target.fails_at = "d"
    file = tmp_path / "copy.resume"
    with pytest.raises(PartialWriteError):
        copied(source, target, batch=2, checkpoint=Checkpoint(str(file), COPY))
    noted = json.loads(file.read_text())
    source.keys.clear()
    target.fails_at = ""
    counts = copied(source, target, batch=2, checkpoint=Checkpoint(str(file), COPY))

    assert noted == {"lckv_resume": 1, **COPY, "after": "b", "counts": noted["counts"], "failed": {}}
    assert source.keys == ["c", "d", "e", "f"]
    assert (counts["same"], counts["written"]) == (1, 3)
    assert sorted(contents(target)) == list("abcdef")
    assert not file.exists()


def test_what_failed_before_a_copy_goes_on_is_told_at_its_end_too(opened: Open, tmp_path: Path) -> None:
    class Both(Picky, Broken):
        pass

    source, target = opened(), Both(opened())
    source.put_many([Record(key, b"1") for key in "abcdefgh"])
    target.refused = ["a", "e"]
    file = tmp_path / "copy.resume"
    for target.fails_at in ("d", "h"):
        with pytest.raises(PartialWriteError):
            copied(source, target, batch=2, checkpoint=Checkpoint(str(file), COPY))
    target.fails_at = ""
    writer = Writer(target, OnExists.FAIL)
    copy_values(source, writer, batch=2, checkpoint=Checkpoint(str(file), COPY))

    assert (writer.tally.failed, writer.tally.reasons) == (2, {"a": "no a", "e": "no e"})
    assert sorted(contents(target)) == list("bcdfgh")


def test_a_target_that_takes_nothing_is_given_up_anew_after_a_copy_went_on() -> None:
    tally = Tally()
    tally.go_on_from(FAILURES_MAX - 1, {"a": "no a"})
    for number in range(FAILURES_MAX - 1):
        tally.fail(f"k{number}", "no")

    with pytest.raises(StoreError, match="1,000 values failed"):
        tally.fail("z", "no")


@pytest.mark.parametrize("noted", [{}, {"counts": 1, "failed": []}, {"counts": {"failed": "x"}, "failed": {"a": 1}}])
def test_a_file_that_says_nothing_of_failures_is_gone_on_from(tmp_path: Path, noted: dict[str, Any]) -> None:
    file = tmp_path / "copy.resume"
    file.write_text(json.dumps({"lckv_resume": 1, **COPY, "after": "b", **noted}))
    checkpoint = Checkpoint(str(file), COPY)

    assert (checkpoint.after, checkpoint.failed) == ("b", 0)


def test_files_beside_the_one_that_is_written_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.new").write_text("my novel")
    Checkpoint(str(tmp_path / "notes"), COPY).note("a", Tally())

    assert {each.name for each in tmp_path.iterdir()} == {"notes", "notes.new"}
    assert (tmp_path / "notes.new").read_text() == "my novel"


@pytest.mark.skipif(os.name != "posix", reason="a directory cannot be made unwritable so")
def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot write .*No such file or directory"):
        Checkpoint(str(tmp_path / "none" / "r"), COPY).note("a", Tally())
    (tmp_path / "r").mkdir()
    checkpoint = Checkpoint(str(tmp_path / "q"), COPY)
    checkpoint.path = tmp_path / "r"
    with pytest.raises(ConfigError, match=r"Cannot write .*Is a directory"):
        checkpoint.note("a", Tally())

    assert [each.name for each in tmp_path.iterdir()] == ["r"]


def test_without_an_order_of_keys_all_is_read_again_and_nothing_written_twice(opened: Open, tmp_path: Path) -> None:
    source, target = opened("http"), Broken(opened())
    source.put_many([Record(key, b"1") for key in "abcdef"])
    target.fails_at = "d"
    file = tmp_path / "copy.resume"
    with pytest.raises(PartialWriteError):
        copied(source, target, batch=2, checkpoint=Checkpoint(str(file), COPY))
    after = json.loads(file.read_text())["after"]
    target.fails_at = ""
    counts = copied(source, target, batch=2, checkpoint=Checkpoint(str(file), COPY))

    assert after is None
    assert (counts["same"], counts["written"]) == (3, 3)
    assert not file.exists()


def test_there_is_no_file_when_nothing_was_acknowledged(opened: Open, tmp_path: Path) -> None:
    source, target = opened(), Broken(opened())
    source.put_many([Record("a", b"1")])
    target.fails_at = "a"
    checkpoint = Checkpoint(str(tmp_path / "copy.resume"), COPY)
    with pytest.raises(PartialWriteError):
        copied(source, target, checkpoint=checkpoint)

    assert not checkpoint.exists
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_another_copy_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "copy.resume"
    checkpoint = Checkpoint(str(file), COPY)
    checkpoint.note("a", Tally())
    with pytest.raises(ConfigError, match=r"another copy.*'sqlite:b', not 'sqlite:c'"):
        Checkpoint(str(file), {**COPY, "to": "sqlite:c"})


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"lckv_resume": 2}', "\0"])
def test_what_is_no_such_file_is_refused_and_left(tmp_path: Path, text: str) -> None:
    file = tmp_path / "copy.resume"
    file.write_text(text)
    with pytest.raises(EngineFileError, match="another file"):
        Checkpoint(str(file), COPY)

    assert file.read_text() == text


def test_the_file_is_written_at_most_twice_a_second(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "copy.resume"
    checkpoint = Checkpoint(str(file), COPY, clock=lambda: now)
    seen = []
    for now in (0.0, 0.2, 0.4, 0.6):
        checkpoint.note(str(now), Tally())
        seen.append(json.loads(file.read_text())["after"])
    checkpoint.note("last", Tally())
    checkpoint.save()

    assert seen == ["0.0", "0.0", "0.0", "0.6"]
    assert json.loads(file.read_text())["after"] == "last"


# -- the rate ---------------------------------------------------------------------------------------------------------


def test_no_more_than_the_rate_goes_through(opened: Open) -> None:
    source, target = opened(), opened()
    source.put_many(records(1_000))
    now, slept = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(now)

    copied(source, target, pace=Pace(100, clock=lambda: now, sleep=sleep))

    assert slept == pytest.approx(list(range(1, 10)))  # a hundred at once, ten times, without a pause at the end

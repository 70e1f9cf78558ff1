"""What every backend promises of ``merge_many`` and of endings, as tests: a part of ``BackendContract``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec.structs import replace

from langchain_kv.backends.base import Backend, Found, Merge, Record, Stored
from langchain_kv.engines.base import Ending
from langchain_kv.testing.contract import FUTURE_MS, PAST_MS, Contract, Face, values_of
from langchain_kv.values.records import Kind

__all__ = ["MergeContract"]

AT = Ending(',"at":"[0-9][0-9]"[}]', 2, 2)

THERE = [
    Record("usual", b'{"v":0,"at":"01"}'),
    Record("empty", b'{"v":"","at":"02"}'),
    Record("letters", b'{"v":"\xf0\x9f\x98\x80\\u0000\xc3\xa9","at":"03"}'),
    Record("alone", b'{"at":"04"}'),
    Record("first", b'{"at":"05","v":0}'),
    Record("expires", b'{"v":0,"at":"06"}', Kind.JSON, FUTURE_MS),
    Record("gone", b'{"v":0,"at":"07"}', Kind.JSON, PAST_MS),
    Record("text", b'{"$v":0,"at":"08"}', Kind.TEXT),
    Record("bytes", b'{"v":0,"at":"09"}', Kind.BYTES),
    Record("no bytes", b"", Kind.BYTES),
    Record("other", b'{"v":0,"at":"1x"}'),
    Record("long", b'{"v":0,"at":"111"}'),
    Record("nested", b'{"v":{"v":0,"at":"12"}}'),
    Record("list", b'["v",{"v":0,"at":"13"}]'),
    Record("number", b"14"),
    *[Record(f"{n:03}", b'{"v":%d,"at":"15"}' % n) for n in range(120)],
]
KEPT = {"usual": "01", "empty": "02", "letters": "03", "alone": "04", "first": "05", "expires": "06", "text": "08"}
"""Which of these times a record that comes later is given; the numbered ones give it theirs, too."""


def _keeping_when(record: Record, stored: Stored) -> Record:
    """Give a record the time of the object that is there."""
    at = stored.value.get("at") if isinstance(stored, Found) and isinstance(stored.value, dict) else None
    if not isinstance(at, str) or len(at) != 2 or not at.isdigit():
        return record
    return replace(record, payload=AT.with_text(record.payload, at.encode()))


class MergeContract(Contract):
    """The tests."""

    def test_merging_stores_what_is_absent_and_merges_the_rest(self, face: Face) -> None:
        face.put_many(
            [Record("there", b"1"), Record("bytes", b"1", Kind.BYTES), Record("gone", b"1", Kind.JSON, PAST_MS)]
        )
        seen: list[tuple[str, Any]] = []

        def merge(record: Record, stored: Any) -> Record:
            seen.append((record.key, stored.value))
            return Record(record.key, b"[%b,1]" % record.payload, record.kind, FUTURE_MS)

        keys = ["new", "there", "gone", "bytes", *(f"{n:03}" for n in range(600))]
        with self._supported(self.updates):
            face.merge_many([], Merge(merge))
            face.merge_many([Record(key, b"2") for key in keys], Merge(merge))
            found = face.get_many(keys)
            assert values_of(found) == [2, [2, 1], 2, [2, 1], *[2] * 600]
            assert [one.expires_at_ms for one in found[:4]] == [None, FUTURE_MS, None, FUTURE_MS]
            assert {key for key, _ in seen} == {"there", "bytes"}
            assert dict(seen)["there"] == 1

    def test_no_merge_is_lost(self, backend: Backend) -> None:
        def merge(_: Record, stored: Any) -> Record:
            return Record("a", b"%d" % (stored.value + 1))

        def work(worker: int) -> None:
            for _ in range(20):
                Face(backend, worker % 2 == 1).merge_many([Record("a", b"1")], Merge(merge))

        with self._supported(self.updates), ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
            assert values_of(backend.get_many(["a"])) == [80]

    def test_merging_by_an_ending_is_merging(self, face: Face) -> None:
        merge = Merge(_keeping_when, AT)
        keys = ["new", *[record.key for record in THERE]]
        wanted = {key: KEPT.get(key, "15" if key.isdigit() else "99") for key in keys}
        with self._supported(self.updates):
            for how_many in (len(keys), 1):
                face.put_many(THERE)
                for start in range(0, len(keys), how_many):
                    face.merge_many(
                        [Record(key, b'{"v":[1],"at":"99"}') for key in keys[start : start + how_many]], merge
                    )
                found = dict(zip(keys, face.get_many(keys), strict=True))
                assert {key: one.value for key, one in found.items()} == {
                    key: {"v": [1], "at": at} for key, at in wanted.items()
                }
                assert {one.expires_at_ms for one in found.values()} == {None}
                face.delete_many(keys)

    def test_what_has_no_ending_is_merged_beside_what_has(self, face: Face) -> None:
        with self._supported(self.updates):
            face.put_many([Record(key, b'{"v":0,"at":"01"}') for key in ("a", "b", "c")])
            face.merge_many(
                [
                    Record("a", b'{"v":1,"at":"99"}'),
                    Record("b", b'{"$v":1,"at":"99"}', Kind.TEXT),
                    Record("c", b'{"v":1,"at":"99"}', Kind.JSON, FUTURE_MS),
                ],
                Merge(_keeping_when, AT),
            )
            found = face.get_many(["a", "b", "c"])
            assert values_of(found) == [{"v": 1, "at": "01"}, {"$v": 1, "at": "01"}, {"v": 1, "at": "01"}]
            assert [one.expires_at_ms for one in found] == [None, None, FUTURE_MS]

    def test_keys_are_ranked_by_their_endings_or_not_at_all(self, face: Face) -> None:
        times = {"b": "02", "a": "02", "\U0001f600": "01", "\uffff": "01", "\x1e": "09", "c": "00"}
        face.put_many([Record(f"\x1fn\x1e{key}", b'{"v":"x","at":"%b"}' % at.encode()) for key, at in times.items()])
        face.put_many(
            [Record(key, b'{"v":0,"at":"50"}') for key in ("\x1fn\x1fm\x1e", "\x1fnm\x1ek", "\x1fm\x1ek", "k")]
        )
        face.put_many([Record("\x1fn\x1egone", b'{"v":0,"at":"60"}', Kind.JSON, PAST_MS)])
        wanted = ["\x1fn\x1fm\x1e", *(f"\x1fn\x1e{key}" for key in ("\x1e", "a", "b", "\uffff", "\U0001f600", "c"))]
        for limit in (None, 0, 3, 100):
            assert face.keys_by_ending("\x1fn", AT, limit) in (None, wanted[:limit])
        assert face.keys_by_ending("\x1fnone", AT, None) in (None, [])
        for odd in (b"5", b"{}", b'{"at":"01","v":0}', b'{"v":{"v":0,"at":"01"}}'):
            face.put_many([Record("\x1fn\x1eodd", odd)])
            assert face.keys_by_ending("\x1fn", AT, None) is None
            assert face.keys_by_ending("\x1fn", AT, 3) is None
            assert face.keys_by_ending("\x1fnm", AT, 3) in (None, ["\x1fnm\x1ek"])

"""What a store of LangGraph's is asked, whatever the target: a class of tests; a subclass gives the stores."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from langchain_kv import InvalidKeyError, InvalidValueError, LangGraphStore, UsageError
from langchain_kv.testing.contract import BaseFace, Clock

Opened = Callable[..., BaseFace]

NS = ("users", "u1")


def keys(items: Any) -> list[str]:
    return [item.key for item in items]


class Questions:
    """The tests; each runs by plain calls and by coroutines.

    Attributes:
        many: how many items the tests of size put.
    """

    many = 2_000

    @pytest.fixture
    def opened(self) -> Opened:
        """Opens one more store on the test's collection, with arguments of its constructor; answers one face of it."""
        raise NotImplementedError

    @pytest.fixture
    def time(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        return Clock(monkeypatch)

    @pytest.fixture
    def store(self, opened: Opened) -> BaseFace:
        return opened()

    # -- items ----------------------------------------------------------------------------------------------------

    def test_an_item_comes_back_with_its_moments(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "food", {"likes": ["pizza", 1, 1.5, None, True, 2**70], "é": {"ü": "☃"}})
        item = store.get(NS, "food")
        assert item.value == {"likes": ["pizza", 1, 1.5, None, True, 2**70], "é": {"ü": "☃"}}
        assert (item.key, item.namespace) == ("food", NS)
        now = datetime.fromtimestamp(time._start_ns / 1e9, UTC)
        for moment in (item.created_at, item.updated_at):
            assert moment.utcoffset() == timedelta(0)
            assert abs(moment - now) < timedelta(milliseconds=1)
        assert store.get(NS, "x") is None
        assert store.get(("users",), "food") is None

    def test_an_item_that_is_put_again_keeps_when_it_was_created(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "a", {"n": 1})
        first = store.get(NS, "a")
        time.now_s += 5
        store.batch([PutOp(NS, "a", {"n": 2}), PutOp(NS, "b", {"n": 3})])
        second, new = store.get(NS, "a"), store.get(NS, "b")
        assert second.value == {"n": 2}
        assert second.created_at == first.created_at
        assert second.updated_at - first.updated_at == timedelta(seconds=5)
        assert new.created_at == new.updated_at == second.updated_at

    def test_an_item_keeps_when_it_was_created_whatever_it_holds_before_and_after(
        self, store: BaseFace, time: Clock
    ) -> None:
        # Usual JSON, what no document holds as it is, an item that expires, one that looks like the end of another.
        forms = [
            PutOp(NS, "", {"n": 1}),
            PutOp(NS, "", {"$n": 1, "": "\ud800"}),
            PutOp(NS, "", {"n": 1}, ttl=5),
            PutOp(NS, "", {"value": {}, "updated_at": "x" * 32, "created_at": "y" * 32}),
        ]
        pairs = {f"{a} {b}": (old, new) for a, old in enumerate(forms) for b, new in enumerate(forms)}
        store.batch([old._replace(key=key) for key, (old, _) in pairs.items()])
        first = store.get(NS, "0 0")
        time.now_s += 5
        store.batch([new._replace(key=key) for key, (_, new) in pairs.items()])
        for key, (_, new) in pairs.items():
            item = store.get(NS, key)
            assert (item.value, item.created_at) == (new.value, first.created_at), key
            assert item.updated_at - first.updated_at == timedelta(seconds=5), key

    def test_an_item_that_was_removed_is_created_anew(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "a", {})
        store.delete(NS, "a")
        store.delete(NS, "never there")
        assert store.get(NS, "a") is None
        time.now_s += 5
        store.put(NS, "a", {})
        item = store.get(NS, "a")
        assert item.created_at == item.updated_at

    def test_reading_changes_no_moment(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "a", {})
        before = store.get(NS, "a")
        time.now_s += 5
        assert store.get(NS, "a").updated_at == before.updated_at
        assert store.search(NS)[0].updated_at == before.updated_at

    def test_a_change_of_a_value_after_its_put_changes_nothing(self, store: BaseFace) -> None:
        value = {"list": [1]}
        store.put(NS, "a", value)
        value["list"].append(2)
        store.get(NS, "a").value["list"].append(3)
        assert store.get(NS, "a").value == {"list": [1]}

    def test_any_mapping_is_a_value(self, store: BaseFace) -> None:
        from types import MappingProxyType

        store.put(NS, "a", MappingProxyType({"n": 1}))
        assert store.get(NS, "a").value == {"n": 1}

    @pytest.mark.parametrize("key", ["", ".", "a/b", "\0", "%", "'", "\x1f\x1e", "x" * 2_000, "é" * 100])
    def test_any_text_is_a_key(self, store: BaseFace, key: str) -> None:
        store.put(NS, key, {"n": 1})
        assert store.get(NS, key).value == {"n": 1}
        assert keys(store.search(NS)) == [key]
        store.delete(NS, key)
        assert store.search(NS) == []

    def test_a_key_that_is_too_long_is_refused_with_its_namespace(self, store: BaseFace) -> None:
        long = "x" * 1_000_000
        if store.target._records._backend.key_max_bytes > 2_000_000:  # Redis
            store.put(NS, long, {"n": 1})
            assert store.get(NS, long).value == {"n": 1}
            return
        with pytest.raises(InvalidKeyError, match=r"of \('users', 'u1'\) takes 1,000,\d+ bytes"):
            store.put(NS, long, {})

    # -- batches --------------------------------------------------------------------------------------------------

    def test_a_batch_reads_before_it_writes(self, store: BaseFace) -> None:
        store.put(NS, "a", {"n": 1})
        answers = store.batch(
            [
                PutOp(NS, "a", {"n": 2}),
                GetOp(NS, "a"),
                PutOp(("new",), "b", {}),
                SearchOp(()),
                ListNamespacesOp(),
                PutOp(NS, "gone", None),
            ]
        )
        assert answers[1].value == {"n": 1}
        assert keys(answers[3]) == ["a"]
        assert [answers[0], *answers[4:]] == [None, [NS], None]
        assert store.get(NS, "a").value == {"n": 2}

    def test_the_last_put_of_an_item_counts(self, store: BaseFace) -> None:
        store.batch([PutOp(NS, "a", {"n": 1}), PutOp(NS, "a", {"n": 2})])
        store.batch([PutOp(NS, "b", {"n": 1}), PutOp(NS, "b", None)])
        store.batch([PutOp(NS, "c", None), PutOp(NS, "c", {"n": 3})])
        found = store.batch([GetOp(NS, key) for key in "abc"])
        assert [item and item.value for item in found] == [{"n": 2}, None, {"n": 3}]

    def test_an_empty_batch_answers_nothing(self, store: BaseFace) -> None:
        assert store.batch([]) == []

    def test_items_are_answered_in_the_order_of_the_operations(self, store: BaseFace) -> None:
        store.batch([PutOp((f"n{n % 7}",), f"k{n}", {"n": n}) for n in range(self.many)])
        found = store.batch([GetOp((f"n{n % 7}",), f"k{n}") for n in reversed(range(self.many))])
        assert [item.value["n"] for item in found] == list(reversed(range(self.many)))

    @pytest.mark.parametrize(
        "value", [{"x": datetime(2026, 1, 1)}, {"x": {1}}, {"x": b""}, {"x": math.nan}, {"x": object()}, {1: 2}, [1], 1]
    )
    def test_what_is_not_json_is_refused_and_nothing_of_the_batch_is_stored(self, store: BaseFace, value: Any) -> None:
        with pytest.raises(InvalidValueError, match="'bad'"):
            store.batch([PutOp(NS, "good", {}), PutOp(NS, "bad", value), PutOp(NS, "good too", {})])
        assert store.search(()) == []

    @pytest.mark.parametrize("namespace", [("a.b",), ("a", ""), ("a", 1), ("a\0",)])
    def test_every_operation_of_a_batch_is_checked(self, store: BaseFace, namespace: Any) -> None:
        for op in (
            PutOp(namespace, "k", {}),
            GetOp(namespace, "k"),
            SearchOp(namespace),
            ListNamespacesOp((MatchCondition("prefix", namespace),)),
        ):
            with pytest.raises(InvalidNamespaceError):
                store.batch([PutOp(NS, "a", {}), op])
        assert store.search(()) == []

    def test_an_item_needs_a_namespace(self, store: BaseFace) -> None:
        with pytest.raises(UsageError, match="at least one label"):
            store.batch([PutOp((), "a", {})])

    # -- namespaces -----------------------------------------------------------------------------------------------

    def test_a_search_goes_by_whole_labels(self, store: BaseFace) -> None:
        for namespace in (("foo",), ("foobar",), ("foo", "bar"), ("fo",), ("bar", "foo")):
            store.put(namespace, "-".join(namespace), {})
        assert sorted(keys(store.search(("foo",)))) == ["foo", "foo-bar"]
        assert len(store.search(())) == 5

    @pytest.mark.parametrize("label", ["%", "_", "*", "[a", "?", "\\", "'", '"', "/", " ", "\x1d", "\x1e", "\x1f", "é"])
    def test_no_character_of_a_label_means_anything(self, store: BaseFace, label: str) -> None:
        store.put((label, "x"), "right", {})
        store.put(("z" + label, "x"), "wrong", {})
        store.put(("zz",), "wrong too", {})
        (found,) = store.search((label,))
        assert (found.namespace, found.key) == ((label, "x"), "right")
        assert (label, "x") in store.list_namespaces()

    def test_namespaces_are_listed_sorted_while_they_have_an_item(self, store: BaseFace) -> None:
        assert store.list_namespaces() == []
        store.get(("a",), "nothing")
        assert store.list_namespaces() == []
        for namespace in (("b",), ("a", "z"), ("a",), ("a", "b", "c"), ("a b",)):
            store.put(namespace, "k", {})
        assert store.list_namespaces() == [("a",), ("a", "b", "c"), ("a", "z"), ("a b",), ("b",)]
        store.delete(("a", "z"), "k")
        assert ("a", "z") not in store.list_namespaces()

    @pytest.mark.parametrize(
        "asked",
        [
            {"prefix": ("a",)},
            {"prefix": ("a", "*")},
            {"prefix": ("*", "x")},
            {"suffix": ("x",)},
            {"suffix": ("*", "v1")},
            {"prefix": ("a",), "suffix": ("v1",)},
            {"max_depth": 1},
            {"max_depth": 2, "prefix": ("a",)},
            {"limit": 2},
            {"limit": 2, "offset": 1},
            {"limit": 0},
            {"offset": 100},
            {"prefix": ("nothing",)},
            {"prefix": ("a", "x", "v1", "deep")},
        ],
        ids=str,
    )
    def test_namespaces_are_chosen_as_by_langgraphs_own_store(self, store: BaseFace, asked: dict[str, Any]) -> None:
        reference = InMemoryStore()
        for namespace in (("a",), ("a", "x"), ("a", "x", "v1"), ("ab", "x"), ("b", "x"), ("b", "y", "v1"), ("v1",)):
            store.put(namespace, "k", {})
            reference.put(namespace, "k", {})
        assert store.list_namespaces(**asked) == reference.list_namespaces(**asked)

    @pytest.mark.parametrize("bounds", [{"limit": -1}, {"offset": -1}, {"limit": True}, {"limit": "1"}], ids=str)
    def test_bounds_that_are_no_numbers_are_refused(self, store: BaseFace, bounds: dict[str, Any]) -> None:
        for call in (lambda: store.search((), **bounds), lambda: store.list_namespaces(**bounds)):
            with pytest.raises(ValueError, match="must be a number of 0 or more"):
                call()

    # -- searches -------------------------------------------------------------------------------------------------

    def test_the_last_updated_come_first_then_by_namespace_and_key(self, store: BaseFace, time: Clock) -> None:
        store.batch([PutOp(("b",), "1", {}), PutOp(("a",), "2", {}), PutOp(("a",), "1", {})])
        time.now_s += 1
        store.put(("b",), "0", {})
        time.now_s += 1
        store.put(("b",), "1", {})
        found = [(item.namespace[0], item.key) for item in store.search(())]
        assert found == [("b", "1"), ("b", "0"), ("a", "1"), ("a", "2")]

    def test_a_search_without_an_index_ignores_its_query(self, store: BaseFace) -> None:
        store.put(NS, "a", {"text": "x"})
        (item,) = store.search(NS, query="anything")
        assert item.score is None

    def test_a_search_has_a_limit_of_ten(self, store: BaseFace) -> None:
        store.batch([PutOp(NS, f"{n:02}", {}) for n in range(20)])
        assert keys(store.search(NS)) == [f"{n:02}" for n in range(10)]
        assert keys(store.search(NS, limit=3, offset=18)) == ["18", "19"]
        assert store.search(NS, limit=0) == store.search(NS, offset=20) == []

    def test_pages_are_whole(self, store: BaseFace) -> None:
        for start in range(0, self.many, 500):
            store.batch([PutOp(NS, f"k{n}", {"n": n}) for n in range(start, min(start + 500, self.many))])
        seen: list[int] = []
        while page := store.search(NS, limit=100, offset=len(seen)):
            seen += [item.value["n"] for item in page]
        assert sorted(seen) == list(range(self.many))

    def test_pages_lose_nothing_while_items_are_updated(self, store: BaseFace) -> None:
        store.batch([PutOp(NS, f"k{n:03}", {"n": n}) for n in range(300)])
        seen: list[str] = []
        while page := store.search(NS, limit=50, offset=len(seen)):
            seen += keys(page)
            store.batch([PutOp(NS, f"k{n:03}", {"n": -n}) for n in range(len(seen) % 7, 300, 20)])
        assert sorted(seen) == [f"k{n:03}" for n in range(300)]

    def test_a_page_is_full_although_items_were_removed(self, store: BaseFace) -> None:
        store.batch([PutOp(NS, f"{n:02}", {}) for n in range(30)])
        assert len(store.search(NS, limit=10)) == 10
        store.batch([PutOp(NS, f"{n:02}", None) for n in range(10, 18)])
        assert keys(store.search(NS, limit=10, offset=10)) == [f"{n:02}" for n in range(18, 28)]
        assert keys(store.search(NS, limit=10, offset=20)) == ["28", "29"]

    def test_a_search_from_the_beginning_looks_anew(self, store: BaseFace) -> None:
        store.batch([PutOp(NS, f"{n:02}", {}) for n in range(30)])
        store.search(NS)
        store.put(NS, "new", {})
        assert keys(store.search(NS, limit=1)) == ["new"]

    @pytest.mark.parametrize("limit", [10, 30])
    def test_a_search_beyond_the_end_looks_anew(self, store: BaseFace, limit: int) -> None:
        store.batch([PutOp(NS, f"{n:02}", {}) for n in range(3)])
        assert store.search(NS, limit=limit, offset=5) == []
        store.batch([PutOp(NS, f"{n:02}", {}) for n in range(90)])
        assert len(store.search(NS, limit=limit, offset=5)) == limit

    @pytest.mark.parametrize("first", [10, 20, 30])
    @pytest.mark.parametrize("second", [10, 20, 30])
    def test_a_second_reading_sees_what_came_after_the_first(self, store: BaseFace, first: int, second: int) -> None:
        wanted: list[str] = []
        for limit, count in ((first, 60), (second, 120)):
            wanted = [f"{n:03}" for n in range(count)]
            store.batch([PutOp(NS, key, {}) for key in wanted])
            seen: list[str] = []
            while page := store.search(NS, limit=limit, offset=len(seen)):
                seen += keys(page)
            assert seen == wanted

    def test_a_page_that_nobody_asked_for_in_a_minute_is_looked_for_anew(self, store: BaseFace, time: Clock) -> None:
        store.batch([PutOp(NS, f"{n:02}", {}) for n in range(30)])
        store.search(NS)
        time.now_s += 61
        store.put(NS, "new", {})
        assert keys(store.search(NS, offset=10, limit=1)) == ["09"]

    def test_another_filter_is_another_search(self, store: BaseFace) -> None:
        store.batch([PutOp(NS, f"{n:02}", {"even": n % 2 == 0}) for n in range(30)])
        store.search(NS, limit=4, filter={"even": True})
        assert keys(store.search(NS, limit=2, offset=4, filter={"even": False})) == ["09", "11"]
        assert keys(store.search(NS, limit=2, offset=4, filter={"even": True})) == ["08", "10"]

    # -- filters --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("wanted", "passing"),
        [
            ({"f": 1}, ["int", "float"]),
            ({"f": True}, ["true"]),
            ({"f": None}, ["missing", "null"]),
            ({"f": "1"}, ["text"]),
            ({"f": [1, 2]}, ["list"]),
            ({"f": (1, 2)}, ["list"]),
            ({"f": {"b": 1}}, ["deep"]),
            ({"f": {}}, ["deep"]),
            ({"f": {"$eq": 1}}, ["int", "float"]),
            ({"f": {"$ne": 1}}, ["deep", "list", "missing", "null", "ten", "text", "true"]),
            ({"f": {"$gt": 9}}, ["ten"]),
            ({"f": {"$gte": 1, "$lt": 10}}, ["float", "int"]),
            ({"f": {"$lte": 1}}, ["float", "int"]),
            ({"f": {"$gt": "0"}}, ["text"]),
            ({"f": {"$gt": None}}, []),
            ({"f": {"$gt": [1]}}, []),
            ({"f": {"$gt": True}}, []),
            ({"a.b": 3}, ["dotted"]),
            ({'it\'s a "name"': 4}, ["quoted"]),
            ({"f": 1, "g": 2}, ["float"]),
        ],
        ids=str,
    )
    def test_a_filter_lets_pass_what_it_says(self, store: BaseFace, wanted: Any, passing: list[str]) -> None:
        fields = {
            "int": {"f": 1},
            "float": {"f": 1.0, "g": 2},
            "true": {"f": True},
            "null": {"f": None},
            "missing": {},
            "text": {"f": "1"},
            "ten": {"f": 10},
            "list": {"f": [1, 2]},
            "deep": {"f": {"b": 1, "c": 2}},
        }
        named = {"dotted": {"f": 7, "a.b": 3}, "quoted": {"f": 7, 'it\'s a "name"': 4}}
        store.batch([PutOp(NS, key, value) for key, value in (fields | named).items()])
        found = set(keys(store.search(NS, filter=wanted, limit=100)))
        assert sorted(found - (named.keys() - set(passing))) == sorted(passing)

    @pytest.mark.parametrize("wanted", [{"f": {"$in": [1]}}, {"f": {"$gt": 1, "g": 2}}, {1: 2}, ["f"]], ids=str)
    def test_a_filter_that_is_none_is_refused(self, store: BaseFace, wanted: Any) -> None:
        with pytest.raises(ValueError, match="filter"):
            store.search(NS, filter=wanted)

    # -- expiry ---------------------------------------------------------------------------------------------------

    def test_what_has_expired_is_not_served(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "short", {}, ttl=0.05)
        store.put(NS, "long", {}, ttl=10)
        store.put(NS, "ever", {})
        time.now_s += 2
        assert sorted(keys(store.search(NS, refresh_ttl=False))) == ["ever", "long", "short"]
        time.now_s += 2
        assert store.get(NS, "short") is None
        assert sorted(keys(store.search(NS))) == ["ever", "long"]
        time.now_s += 1_000
        assert keys(store.search(NS)) == ["ever"]
        assert store.sweep_ttl() <= 2
        assert store.sweep_ttl() == 0

    def test_a_read_starts_the_time_of_an_item_anew(self, store: BaseFace, time: Clock) -> None:
        for key in ("got", "found", "not refreshed"):
            store.put((key,), key, {}, ttl=1)
        time.now_s += 40
        before = store.get(("got",), "got")
        assert before is not None
        assert len(store.search(("found",))) == 1
        store.get(("not refreshed",), "not refreshed", refresh_ttl=False)
        time.now_s += 40
        assert store.get(("got",), "got").updated_at == before.updated_at
        assert len(store.search(("found",), refresh_ttl=False)) == 1
        assert store.get(("not refreshed",), "not refreshed") is None
        time.now_s += 61
        assert store.search(()) == []

    def test_a_put_without_a_ttl_clears_it(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "a", {}, ttl=1)
        store.put(NS, "a", {}, ttl=None)
        time.now_s += 1_000
        assert store.get(NS, "a") is not None

    def test_the_config_says_the_usual_ttl_and_whether_reads_refresh(self, opened: Opened, time: Clock) -> None:
        store = opened(ttl={"default_ttl": 1, "refresh_on_read": False})
        store.put(NS, "usual", {})
        store.put(NS, "ever", {}, ttl=None)
        time.now_s += 40
        assert store.get(NS, "usual") is not None
        time.now_s += 30
        assert store.get(NS, "usual") is None
        assert store.get(NS, "ever") is not None

    def test_an_item_that_expired_is_created_anew(self, store: BaseFace, time: Clock) -> None:
        store.put(NS, "a", {}, ttl=1)
        time.now_s += 100
        store.put(NS, "a", {})
        item = store.get(NS, "a")
        assert item.created_at == item.updated_at

    @pytest.mark.parametrize("ttl", [0, -1, "1", math.nan, True])
    def test_a_ttl_that_is_none_is_refused(self, store: BaseFace, ttl: Any) -> None:
        with pytest.raises(UsageError, match="number of minutes over 0"):
            store.put(NS, "a", {}, ttl=ttl)

    # -- many at once ---------------------------------------------------------------------------------------------

    async def test_six_hundred_written_at_once_are_all_found(self, opened: Opened) -> None:
        store: LangGraphStore = opened().target
        await asyncio.gather(*(store.aput(NS, f"/f{n}.txt", {"n": n}) for n in range(600)))
        seen: list[int] = []
        while page := await store.asearch(NS, limit=100, offset=len(seen)):
            seen += [item.value["n"] for item in page]
        assert sorted(seen) == list(range(600))
        got = await asyncio.gather(*(store.aget(NS, f"/f{n}.txt") for n in range(600)))
        assert [item is not None and item.value["n"] for item in got] == list(range(600))

    async def test_a_wrong_call_does_not_spoil_those_made_with_it(self, opened: Opened) -> None:
        store: LangGraphStore = opened().target
        answers = await asyncio.gather(
            store.aput(NS, "a", {}),
            store.aput(NS, "bad", {"x": {1}}),
            store.aput(NS, "large", {"x": "x" * 20_000_000}) if self.has_limit else store.aput(NS, "b", {}),
            store.aput(NS, "c", {}),
            return_exceptions=True,
        )
        assert [answers[0], answers[3]] == [None, None]
        assert isinstance(answers[1], InvalidValueError)
        assert sorted(keys(await store.asearch(NS))) == (["a", "c"] if self.has_limit else ["a", "b", "c"])

    has_limit = True

"""Collections of a Data API, and of a cluster, that are made with ``atomic=True`` or ``namespaced=True``."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langchain_kv import (
    CollectionConflictError,
    ConfigError,
    DamagedValueError,
    InvalidKeyError,
    KVByteStore,
    KVStore,
    PartialWriteError,
    StoreError,
    UnsupportedError,
)
from langchain_kv.backends.dataapi import updating
from langchain_kv.runtime import clock
from langchain_kv.testing import DataAPIServer
from langchain_kv.values.namespaces import namespace_prefix
from places import Place, open_place

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture(
    scope="module",
    params=["http+memory", "http+sqlite", pytest.param("cassandra", marks=[pytest.mark.slow, pytest.mark.cassandra])],
)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(request.param, tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    """Each place in turn where documents have a form, by HTTP and by CQL."""
    yield shared
    shared.tidy()


@pytest.fixture
def server() -> Iterator[DataAPIServer]:
    with DataAPIServer() as server:
        yield server


def increment(old: int | None) -> int:
    return (old or 0) + 1


class TestUpdating:
    def test_the_function_sees_the_value_and_answers_the_new_one(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        assert face(store).update("n", increment) == 1
        assert face(store).update("n", increment) == 2
        assert face(store).mget(["n"]) == [2]
        face(store).mset([("n", 10)])
        assert face(store).update("n", increment) == 11
        assert face(store).update("n", lambda old: None) is None
        assert face(store).mget(["n"]) == [None]
        assert face(store).update("n", lambda old: None) is None
        assert face(store).keys() == []

    def test_bytes_are_updated_too(self, place: Place, face: Any) -> None:
        store = place.store(KVByteStore, atomic=True)
        face(store).update("b", lambda old: (old or b"") + b"\0\xff")
        assert face(store).update("b", lambda old: old + b"1") == b"\0\xff1"
        assert face(store).mget(["b"]) == [b"\0\xff1"]

    def test_a_function_that_raises_changes_nothing(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        face(store).mset([("a", 1)])
        before = place.peek(store.collection.name, "a")
        with pytest.raises(ZeroDivisionError):
            face(store).update("a", lambda old: old / 0)
        assert place.peek(store.collection.name, "a") == before

    def test_a_value_that_cannot_be_kept_changes_nothing(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        face(store).mset([("a", 1)])
        with pytest.raises(StoreError, match="'a'"):
            face(store).update("a", lambda old: object())
        assert face(store).mget(["a"]) == [1]

    def test_each_write_leaves_another_version(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        name = store.collection.name
        versions = set()
        face(store).mset([(f"k{number}", 1) for number in range(10)])
        face(store).add([("added", 1)])
        for _ in range(3):
            face(store).mset([("k0", 1)])
            versions.add(place.peek(name, "k0")["version"])
            face(store).update("k0", lambda old: old)
            versions.add(place.peek(name, "k0")["version"])
        versions |= {place.peek(name, key)["version"] for key in ("added", "k1")}
        assert len(versions) == 8

    def test_what_others_wrote_without_a_version_is_updated(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        place.plant(store.collection.name, "n", '{"_id":"n","value":5,"note":"kept until it is replaced"}')
        assert face(store).update("n", increment) == 6
        assert face(store).update("n", increment) == 7

    def test_a_version_of_another_type_is_none(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        place.plant(store.collection.name, "n", '{"_id":"n","value":5,"version":7}')
        assert face(store).update("n", increment) == 6

    def test_what_cannot_be_read_is_left_as_it_is(self, place: Place, face: Any) -> None:
        store = place.store(atomic=True)
        body = '{"_id":"n","value":5,"encoding":"rot13","version":"v"}'
        place.plant(store.collection.name, "n", body)
        with pytest.raises(DamagedValueError, match="'n'"):
            face(store).update("n", increment)
        assert place.peek(store.collection.name, "n")["value"] == 5

    def test_a_value_keeps_its_moment_of_expiry_or_gets_the_given_one(
        self, place: Place, face: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = clock._now_ns()
        monkeypatch.setattr(clock, "_now_ns", lambda: now)
        store = place.store(atomic=True)
        face(store).mset([("a", 1), ("b", 1)], ttl_s=10)
        face(store).update("a", increment)
        face(store).update("b", increment, ttl_s=100)
        now += 11 * 10**9
        assert face(store).mget(["a", "b"]) == [None, 2]
        assert face(store).update("a", increment) == 1  # what has expired is not there
        assert face(store).mget(["a"]) == [1]

    @pytest.mark.parametrize("namespaced", [False, True])
    def test_reading_starts_the_time_anew(
        self, place: Place, face: Any, monkeypatch: pytest.MonkeyPatch, namespaced: bool
    ) -> None:
        now = clock._now_ns()
        monkeypatch.setattr(clock, "_now_ns", lambda: now)
        shared = place.store(atomic=True, ttl_s=10, refresh_on_read=True, namespaced=namespaced)
        store = shared.namespace('[a"]\\') if namespaced else shared
        face(store).mset([("a", 1), ("b", 1)])
        key = (namespace_prefix(('[a"]\\',)) if namespaced else "") + "a"
        before = place.peek(shared.collection.name, key)
        now += 6 * 10**9
        assert face(store).mget(["a"]) == [1]
        after = place.peek(shared.collection.name, key)
        assert after["version"] != before["version"]
        assert after.get("ns") == before.get("ns")
        now += 6 * 10**9
        assert face(store).mget(["a", "b"]) == [1, None]

    def test_no_increment_of_many_writers_is_lost(self, place: Place) -> None:
        store = place.store(atomic=True)
        other = place.store(collection=store.collection.name, atomic=True)

        def work(number: int) -> None:
            for _ in range(10):
                (store if number % 2 else other).update("n", increment)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert store.mget(["n"]) == [80]

    def test_over_http_only_a_collection_made_for_it_has_it(self, http_place: Place, face: Any) -> None:
        store = http_place.store()
        with pytest.raises(UnsupportedError, match=r"atomic=True.*add\(\)"):
            face(store).update("n", increment)
        with pytest.raises(UnsupportedError, match="atomic=True"):
            http_place.store(ttl_s=1, refresh_on_read=True)


class TestLostAnswers:
    @pytest.mark.parametrize("command", ["insertMany", "findOneAndReplace", "deleteOne"])
    @pytest.mark.parametrize("fault", [{"drop": True}, {"status": 502}, {"code": "TIMEOUT_WRITING_DATA"}])
    @pytest.mark.parametrize("applied", [True, False])
    def test_a_change_is_made_once(
        self, server: DataAPIServer, face: Any, command: str, fault: dict[str, Any], applied: bool
    ) -> None:
        store = server.store(atomic=True)
        if command != "insertMany":
            store.mset([("n", 5)])
        server.fail(command=command, applied=applied, **fault)
        if command == "deleteOne":
            assert face(store).update("n", lambda old: None) is None
            assert store.mget(["n"]) == [None]
            return
        expected = 1 if command == "insertMany" else 6
        assert face(store).update("n", increment) == expected
        assert store.mget(["n"]) == [expected]

    def test_a_change_that_another_client_has_written_over_is_unknown(self, server: DataAPIServer) -> None:
        store = server.store(atomic=True)
        store.mset([("n", 5)])
        other = server.store(atomic=True)
        seen: list[Any] = []

        def change(old: Any) -> Any:
            seen.append(old)
            server.fail(command="findOneAndReplace", applied=True, drop=True)
            return old + 1

        # Sent again, the replace finds no document of its version; before the next look another client has written.
        original = updating._Update._find
        calls = 0

        async def find(self: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                await other.amset([("n", 100)])
            return await original(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updating._Update, "_find", find)
            with pytest.raises(PartialWriteError, match="may have been made or not") as caught:
                store.update("n", change)
        assert caught.value.unknown == ("n",)
        assert caught.value.applied is None
        assert seen == [5]
        assert store.mget(["n"]) == [100]

    def test_being_overtaken_all_the_time_is_told(self, http_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(updating, "OVERTAKEN_S", 0.05)
        store = http_place.store(atomic=True)
        versions = itertools.count()

        def change(old: Any) -> int:
            http_place.plant(store.collection.name, "n", f'{{"_id":"n","value":1,"version":"v{next(versions)}"}}')
            return 2

        with pytest.raises(StoreError, match="overtaken by other writers") as caught:
            store.update("n", change)
        assert caught.value.applied is False
        assert caught.value.retryable
        assert store.mget(["n"]) == [1]
        assert store.update("n", lambda old: 2) == 2  # alone

    def test_a_service_that_refuses_after_a_race_is_asked_again(self, server: DataAPIServer, face: Any) -> None:
        store = server.store(atomic=True)
        store.mset([("n", 5)])
        server.fail(2, command="findOneAndReplace", code="INVALID_DATABASE_QUERY")
        assert face(store).update("n", increment) == 6
        sent = [each.fields for each in server.requests if each.command == "findOneAndReplace"]
        filters = [fields["filter"] for fields in sent if not fields.get("options")]
        assert [sorted(each) for each in filters] == [["_id", "version"], ["version"], ["version"]]


class TestNamespaces:
    LABELS = ("users", "u1", "\x1f\x1e\x1d", "a b")

    def test_a_document_lists_the_namespaces_of_its_key(self, place: Place, face: Any) -> None:
        store = place.store(namespaced=True)
        face(store.namespace("a", "b")).mset([("k", 1)])
        face(store).mset([("plain", 1)])
        name = store.collection.name
        assert place.peek(name, namespace_prefix(("a", "b")) + "k")["ns"] == [
            "\x1fa",
            "\x1fa\x1fb",
            "\x1fa\x1fb\x1e",
        ]
        assert "ns" not in place.peek(name, "plain")

    def test_each_namespace_is_listed_as_in_a_plain_collection(self, place: Place, face: Any) -> None:
        indexed, plain = place.store(namespaced=True), place.store()
        for store in (indexed, plain):
            for labels in (("a",), ("a", "b"), ("ab",), ("a", "bc"), self.LABELS):
                face(store.namespace(*labels)).mset([("k", labels), ("key 2", 1), ("x", 1)])
            face(store).mset([("a", 1), ("k", 1)])
        for labels in ((), ("a",), ("a", "b"), ("ab",), ("a", "bc"), ("none",), self.LABELS, self.LABELS[:2]):
            one, other = (store.namespace(*labels) if labels else store for store in (indexed, plain))
            for prefix in ("", "k", "x", "\x1fa", "\x1fa\x1fb", "\x1fa\x1fb\x1e"):
                assert sorted(face(one).keys(prefix)) == sorted(face(other).keys(prefix))
                assert sorted(map(repr, face(one).items(prefix))) == sorted(map(repr, face(other).items(prefix)))
            assert face(one).namespaces() == face(other).namespaces()
            assert face(one).namespaces(prefix=("a",)) == face(other).namespaces(prefix=("a",))
            assert face(one).count() == face(other).count()

    def test_clearing_one_leaves_the_others(self, place: Place, face: Any) -> None:
        store = place.store(namespaced=True, atomic=True)
        for label in ("a", "ab", "b"):
            face(store.namespace(label)).mset([(f"k{number}", 1) for number in range(60)])
        face(store.namespace("a")).clear()
        assert [face(store.namespace(label)).count() for label in ("a", "ab", "b")] == [0, 60, 60]

    def test_listing_one_reads_that_one_only(self, server: DataAPIServer, face: Any) -> None:
        store = server.store(namespaced=True)
        for number in range(20):
            store.namespace(f"n{number}").mset([(f"k{key}", 1) for key in range(100)])
        before = len(server.requests)
        assert len(face(store.namespace("n7")).keys()) == 100
        assert len(server.requests) - before <= 3  # pages of 50

    def test_more_labels_than_a_document_can_list_are_refused(self, place: Place, face: Any) -> None:
        store = place.store(namespaced=True)
        face(store.namespace(*["a"] * 999)).mset([("k", 1)])
        with pytest.raises(InvalidKeyError, match="1,000 labels, the limit of a namespaced collection is 999"):
            face(store.namespace(*["a"] * 1000)).mset([("k", 1)])


FORMS: list[dict[str, bool]] = [{}, {"namespaced": True}, {"atomic": True}, {"namespaced": True, "atomic": True}]


class TestForms:
    @pytest.mark.parametrize("made", FORMS, ids=str)
    @pytest.mark.parametrize("wanted", FORMS, ids=str)
    def test_a_collection_is_opened_as_it_was_made(
        self, server: DataAPIServer, made: dict[str, bool], wanted: dict[str, bool]
    ) -> None:
        server.store(**made).mset([("a", 1)])
        if made == wanted:
            assert server.store(**wanted).mget(["a"]) == [1]
            return
        advice = " and ".join(f"{name}=True" for name in made) or "without"
        with pytest.raises(CollectionConflictError, match=advice.replace(" and ", ", ")):
            server.store(**wanted)

    @pytest.mark.parametrize("wanted", FORMS, ids=str)
    @pytest.mark.filterwarnings("ignore:.*indexing turned on for all fields")
    def test_one_that_indexes_every_field_serves_all(self, http_place: Place, wanted: dict[str, bool]) -> None:
        name = http_place.new_name()
        http_place.create(name, {})
        store = http_place.store(collection=name, **wanted)
        store.namespace("a").mset([("k", 1)])
        assert list(store.namespace("a").yield_keys()) == ["k"]
        if wanted.get("atomic"):
            assert store.namespace("a").update("k", increment) == 2

    def test_other_targets_take_no_notice(self, tmp_path: Any, face: Any) -> None:
        for url in (f"memory:{tmp_path}", f"sqlite:{tmp_path / 'kv.db'}"):
            with KVStore("kv", url, namespaced=True, atomic=True) as store:
                face(store.namespace("a")).mset([("k", 1)])
                assert face(store).update("n", increment) == 1
                with KVStore("kv", url) as plain:
                    assert plain.mget(["n"]) == [1]

    @pytest.mark.parametrize("name", ["namespaced", "atomic"])
    @pytest.mark.parametrize("value", ["no", 1, None])
    def test_they_are_true_or_false(self, name: str, value: Any) -> None:
        with pytest.raises(ConfigError, match=f"{name} must be True or False"):
            KVStore("kv", "memory:", **{name: value})

    def test_copies_are_of_the_same_form(self, server: DataAPIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
        store = server.store(atomic=True, namespaced=True)
        for other in (copy.copy(store), pickle.loads(pickle.dumps(store))):
            with other:
                other.namespace("a").update("n", increment)
        assert store.namespace("a").mget(["n"]) == [2]
        assert store.namespaces() == [("a",)]

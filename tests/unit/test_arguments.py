"""Arguments of the constructors: checked alike on every target, exact builtins, documented. Tokens, too."""

from __future__ import annotations

import inspect
import pickle
import re
import reprlib
from enum import Enum, StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

import langchain_kv
from langchain_kv import AstraDBStore, ConfigError, KVStore, SetupMode, UsageError
from langchain_kv.places.arguments import place_of, resolve
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.dataapi import DataAPIPlace
from places import open_place

URLS = ["memory:", "sqlite:kv.db", "http://127.0.0.1:1", "cassandra://127.0.0.1:1/ks"]
STORES = ["KVStore", "KVByteStore", "AstraDBStore", "AstraDBByteStore", "AstraDBBaseStore"]


def asked(url: str | None, *, collection: str = "c", **arguments: Any) -> BackendOptions:
    """Return what a store with these arguments asks of its place."""
    return resolve(collection, place_of(url), **arguments)


WRONG: list[tuple[str, Any]] = [
    ("deadline_s", -5),
    ("deadline_s", float("inf")),
    ("deadline_s", True),
    ("deadline_s", 10**5_000),
    ("request_timeout_s", "x"),
    ("request_timeout_s", float("nan")),
    ("wake_timeout_s", 0),
    ("environment", "bogus"),
    ("environment", 5),
    ("ext_callers", "one string"),
    ("ext_callers", [("a", "b", "c")]),
    ("ext_callers", [("name", 1.0)]),
    ("ext_callers", 5),
    ("token", 42),
    ("token", b"bytes"),
    ("token", type),
    ("token", "two\nlines"),
    ("token", "caf\u00e9"),
    ("keyspace", "a-b"),
    ("keyspace", 5),
    ("namespace", ""),
    ("api_options", {"token": "x"}),
    ("api_options", SimpleNamespace(timeout_options=SimpleNamespace(request_timeout_ms=-1))),
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("name", "value"),
    WRONG,
    ids=lambda value: reprlib.repr(value) if not isinstance(value, int) else str(value % 1_000),
)
def test_a_wrong_argument_is_refused_in_the_same_words_on_every_target(url: str, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(url, **{name: value})
    with pytest.raises(ConfigError, match=re.escape(str(caught.value))):
        asked("http://h", **{name: value})
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("url", [5, b"memory:", object(), Path("kv.db"), []])
def test_a_url_that_is_no_text_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="A URL must be a string"):
        KVStore("c", url)


@pytest.mark.parametrize("given", [None, 5, "k", b"k", {"k": 1}.items])
def test_what_is_no_list_of_keys_or_pairs_is_refused(given: Any) -> None:
    with KVStore("c", "memory:") as store:
        for call in (store.mget, store.mset, store.mdelete):
            with pytest.raises(UsageError):
                call(given)


@pytest.mark.parametrize("url", ["memory:", "http://127.0.0.1:1"])
@pytest.mark.parametrize("value", ["no", 0, None, 1])
def test_a_collection_is_deleted_for_true_alone(url: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="pre_delete_collection must be True or False"):
        KVStore("c", url, setup_mode="OFF", pre_delete_collection=value)


@pytest.mark.parametrize("url", URLS)
def test_right_arguments_that_a_target_has_no_use_for_are_taken(url: str) -> None:
    settings = asked(url, token="t", environment="prod", deadline_s=1, wake_timeout_s=2, ext_callers=["a"])
    assert settings.deadline_s == 1


# -- exact builtins ---------------------------------------------------------------------------------------------------


class Name(str, Enum):  # noqa: UP042 - it formats as its member's name, unlike a StrEnum
    COLLECTION = "notes"
    KEYSPACE = "ks"
    TOKEN = "token"
    HOST = "http://h"
    FILE = "sqlite:/kv.db"
    ENVIRONMENT = "HCD"
    CALLER = "app"
    CA = "ca.pem"
    PATH = "deep"
    HEADER = "X-Header"


class Strict(StrEnum):
    COLLECTION = "notes"


def test_texts_of_subclasses_become_texts_themselves() -> None:
    options = SimpleNamespace(
        token=Name.TOKEN,
        environment=Name.ENVIRONMENT,
        callers=[(Name.CALLER, Name.CALLER)],
        ca_cert_path=Name.CA,
        database_additional_headers={Name.HEADER: Name.TOKEN},
        data_api_url_options=SimpleNamespace(api_path=Name.PATH),
    )
    place = place_of(Name.HOST)
    assert isinstance(place, DataAPIPlace)
    settings = resolve(Name.COLLECTION, place, keyspace=Name.KEYSPACE, ext_callers=[Name.CALLER], api_options=options)
    texts = [settings.collection, place.endpoint, settings.keyspace, settings.ca_file, settings.path_prefix]

    assert texts == ["notes", "http://h", "ks", "ca.pem", "/deep"]
    assert {type(text) for text in texts} == {str}
    assert settings.user_agent.startswith("app app/app langchain/")
    assert settings.headers == {"X-Header": "token"}
    assert {type(name) for name in settings.headers} == {str}
    assert f"{settings.token}" == "token"
    assert f"{asked('http://h', token=Name.TOKEN).token}" == "token"
    hcd = asked("http://h", environment=Name.ENVIRONMENT)
    assert (hcd.environment, type(hcd.environment), place.path_prefix(hcd)) == ("hcd", str, "")
    assert asked(Name.FILE, namespace=Name.KEYSPACE).keyspace == "ks"
    assert asked("memory:", collection=Strict.COLLECTION).collection == "notes"


@pytest.mark.parametrize("place_name", ["memory", "sqlite", "http+sqlite"])
def test_a_name_of_an_enum_is_its_value_on_every_target(place_name: str, tmp_path: Path) -> None:
    with open_place(place_name, tmp_path) as place:
        store = place.store(KVStore, Name.COLLECTION)
        store.mset([(Name.CALLER, {Name.CA: Name.PATH})])
        assert place.store(KVStore, "notes").mget(["app"]) == [{"ca.pem": "deep"}]
        assert list(store.yield_keys(prefix=Name.CALLER)) == ["app"]
        assert store.collection.full_name == "default_keyspace.notes"
        assert place.peek("notes", "app") == {"_id": "app", "value": {"ca.pem": "deep"}}


def test_seconds_may_be_any_real_number() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is a dependency of the tests")
    settings = asked("http://h", deadline_s=numpy.int64(3), request_timeout_s=numpy.float32(0.5))
    assert (settings.deadline_s, settings.request_timeout_s) == (3.0, 0.5)
    assert type(settings.deadline_s) is float


# -- tokens -----------------------------------------------------------------------------------------------------------


class Provider:
    def __init__(self, token: str | None) -> None:
        self._token = token

    def get_token(self) -> str | None:
        return self._token


WAYS = {
    "text": lambda token: {"token": token},
    "SecretStr": lambda token: {"token": SecretStr(token)},
    "provider": lambda token: {"token": Provider(token)},
    "function": lambda token: {"token": lambda: token},
    "api_options": lambda token: {"api_options": SimpleNamespace(token=token)},
    "provider of api_options": lambda token: {"api_options": SimpleNamespace(token=Provider(token))},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spoilt", ["{}\n", "{}\r\n", " {} ", "\ufeff{}", "\t{}\x0c"])
def test_white_space_around_a_token_is_taken_off(tmp_path: Path, way: str, spoilt: str) -> None:
    with open_place("http+memory", tmp_path) as place:
        given = WAYS[way](spoilt.format(place.arguments["token"]))
        place.arguments = {}
        place.store(KVStore, **given).mset([("a", 1)])


def test_white_space_around_a_token_of_the_environment_is_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_place("http+memory", tmp_path) as place:
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", place.arguments["token"] + "\r\n")
        place.arguments = {}
        store = place.store(KVStore)
        store.mset([("a", 1)])
        with pickle.loads(pickle.dumps(store)) as copy:
            assert copy.mget(["a"]) == [1]


def test_white_space_alone_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", " \n")
    assert asked("http://h").token is None
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "of-the-environment")
    assert asked("http://h", token="\n").token is None
    assert asked("http://h", token=None).token == "of-the-environment"


def test_what_stands_within_a_token_is_refused_by_every_way(tmp_path: Path) -> None:
    with open_place("http+memory", tmp_path) as place:
        place.arguments = {}
        for given in WAYS.values():
            with pytest.raises(ConfigError, match="printable ASCII"):
                place.open(KVStore, **given("two\nlines"))


def test_a_store_that_was_unpickled_says_that_a_pickle_carries_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_place("http+memory", tmp_path) as place:
        pickled = pickle.dumps(place.store(KVStore, "kv"))
        pickled = pickle.dumps(pickle.loads(pickled))  # also by way of a copy that had none
        copy = pickle.loads(pickled)
        with pytest.raises(ConfigError, match="a pickle carries no token: set ASTRA_DB_APPLICATION_TOKEN"):
            copy.mget(["a"])
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", place.arguments["token"])
        assert copy.mget(["a"]) == [None]
        copy.close()


def test_a_store_without_a_token_is_unpickled_without_one() -> None:
    settings = asked("http://h").without_secrets().with_secrets("ASTRA_DB_APPLICATION_TOKEN")
    assert settings.token is None


# -- the environment --------------------------------------------------------------------------------------------------


def test_lckv_url_wins_over_the_endpoint_that_others_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "http://of-others")
    monkeypatch.setenv("LCKV_URL", " memory:ours\n")
    for store in (KVStore("c"), AstraDBStore("c")):
        assert "memory:ours" in repr(store)
        store.close()
    assert place_of("memory:given").shown == "memory:given"
    monkeypatch.setenv("LCKV_URL", "")
    assert place_of(None) == DataAPIPlace("http://of-others")


def test_a_pickle_of_a_cluster_takes_its_password_from_the_same_url(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "cassandra://user:secret@127.0.0.1:1/ks"
    monkeypatch.setenv("LCKV_URL", url)
    loaded = pickle.loads(pickle.dumps(place_of(url).without_secrets())).with_secrets()
    assert loaded.settings.password == "secret"


# -- what is seen of a constructor ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORES)
def test_help_says_what_each_argument_is(name: str) -> None:
    constructor = getattr(langchain_kv, name).__init__
    documented = re.findall(r"^    (\w+): \S", inspect.getdoc(constructor) or "", re.MULTILINE)
    parameters = list(inspect.signature(constructor).parameters.values())[1:]

    assert set(documented) - {"ConfigError", "CollectionConflictError"} == {one.name for one in parameters}
    assert all(one.annotation not in (one.empty, "Any") for one in parameters)
    assert all(one.kind is not one.VAR_KEYWORD for one in parameters)
    for one in parameters:
        assert not one.name.endswith("_s") or f"{one.name}: seconds" in (inspect.getdoc(constructor) or "")


@pytest.mark.parametrize("name", ["KVStore", "AstraDBStore"])
def test_an_argument_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(TypeError, match="api_endpont"):
        getattr(langchain_kv, name)("c", api_endpont="memory:")


@pytest.mark.parametrize("mode", list(SetupMode))
def test_a_set_up_mode_may_be_given_by_its_name(mode: SetupMode) -> None:
    KVStore("c", "memory:", setup_mode=mode.name).close()

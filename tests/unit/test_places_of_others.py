"""Places that others make: given to a store as they are, or named by an entry point of an installed package."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from langchain_kv import (
    AstraDBByteStore,
    AstraDBStore,
    Backend,
    BackendOptions,
    ConfigError,
    KVByteStore,
    KVStore,
    Place,
    UsageError,
)
from langchain_kv.places.files import FilePlace
from langchain_kv.places.memory import MemoryPlace
from langchain_kv.places.schemes import parse_url

SECRET = "".join(["s3", "cret"])  # nowhere in a line that a traceback shows


class ClientPlace(Place):
    """A place made of an object that the user has, which no pickle can carry."""

    def __init__(self, name: str, keyspace: str = "") -> None:
        self.keyspace = keyspace
        self.client = threading.Lock()
        self.asked: list[BackendOptions] = []
        self._below = MemoryPlace(name)

    @property
    def shown(self) -> str:
        return "client:of-the-user"

    def open(self, options: BackendOptions) -> Backend:
        self.asked.append(options)
        return self._below.open(options)


@dataclass(frozen=True)
class SecretPlace(Place):
    """A place with a password, which takes it from the environment where it is loaded."""

    name: str
    password: str | None = None

    token_variable: ClassVar[str] = "OTHERS_TOKEN"

    @property
    def shown(self) -> str:
        return f"secret:{self.name}"

    def open(self, options: BackendOptions) -> Backend:
        return MemoryPlace(self.name).open(options)

    def without_secrets(self) -> Self:
        return replace(self, password=None)

    def with_secrets(self) -> Self:
        import os

        return replace(self, password=os.environ.get("OTHERS_PASSWORD"))


# -- given to a store -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KVStore, AstraDBStore])
def test_a_store_takes_a_place_where_it_takes_a_url(kind: Any) -> None:
    place = ClientPlace(f"of {kind.__name__}")
    where = {"url": place} if kind is KVStore else {"api_endpoint": place}
    with kind("kv", **where) as store:
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]
        assert repr(store) == f"{kind.__name__}('default_keyspace.kv', 'client:of-the-user')"


@pytest.mark.parametrize("kind", [KVByteStore, AstraDBByteStore])
async def test_a_byte_store_takes_a_place_in_coroutines(kind: Any) -> None:
    place = ClientPlace(f"of {kind.__name__}")
    where = {"url": place} if kind is KVByteStore else {"api_endpoint": place}
    async with kind("kv", setup_mode="ASYNC", **where) as store:
        await store.amset([("a", b"1")])
        assert await store.amget(["a"]) == [b"1"]


def test_a_place_of_ours_may_be_given_as_an_object(tmp_path: Path) -> None:
    with KVStore("kv", FilePlace(str(tmp_path / "kv.db"))) as store:
        store.mset([("a", 1)])
    with KVStore("kv", f"sqlite:{tmp_path / 'kv.db'}") as store:
        assert store.mget(["a"]) == [1]


def test_a_place_is_told_what_the_store_was_given_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "meant for Astra DB")
    place = ClientPlace("told")
    KVStore("kv", place, keyspace="ks", deadline_s=3, environment="HCD", setup_mode="OFF").close()
    KVStore("kv", place, token=" given\n", setup_mode="OFF").close()
    with pytest.raises(ConfigError, match="collection name"):
        KVStore("k v", place)

    first, second = place.asked
    assert (first.collection, first.keyspace, first.deadline_s, first.environment) == ("kv", "ks", 3.0, "hcd")
    assert (first.token, second.token) == (None, "given")


def test_the_keyspace_of_a_place_wins() -> None:
    with KVStore("kv", ClientPlace("of a keyspace", keyspace="mine"), keyspace="argument") as store:
        assert store.collection.full_name == "mine.kv"


def test_a_place_may_name_the_variable_that_has_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHERS_TOKEN", " theirs\n")
    with KVStore("kv", SecretPlace("token"), setup_mode="OFF") as store:
        assert store._backend_options.token == "theirs"
        with pickle.loads(pickle.dumps(store)) as loaded:
            assert loaded._backend_options.token() == "theirs"
            monkeypatch.delenv("OTHERS_TOKEN")
            with pytest.raises(ConfigError, match="a pickle carries no token: set OTHERS_TOKEN in"):
                loaded._backend_options.token()


# -- copies -----------------------------------------------------------------------------------------------------------


def test_a_store_on_a_place_that_cannot_be_pickled_says_so() -> None:
    with KVStore("kv", ClientPlace("pickled")) as store:
        with pytest.raises(UsageError, match=r"on client:of-the-user cannot be pickled.*\(ClientPlace\)"):
            pickle.dumps(store)
    with KVStore("kv", ClientPlace("pickled")) as anew:  # the advice
        assert anew.mget(["a"]) == [None]


def test_a_copy_within_the_process_uses_the_same_place() -> None:
    place = ClientPlace("copied")
    with KVStore("kv", place) as store:
        store.mset([("a", 1)])
        with copy.deepcopy(store) as other:
            assert other.mget(["a"]) == [1]
    assert len(place.asked) == 2


def test_a_pickle_carries_no_password_of_a_place_and_takes_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with KVStore("kv", SecretPlace("password", "s3cret")) as store:
        store.mset([("a", 1)])
        pickled = pickle.dumps(store)
        assert b"s3cret" not in pickled
        monkeypatch.setenv("OTHERS_PASSWORD", "of the environment")
        with pickle.loads(pickled) as loaded:
            assert loaded.mget(["a"]) == [1]
            assert loaded._place == SecretPlace("password", "of the environment")


# -- entry points -----------------------------------------------------------------------------------------------------

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Have a distribution whose module and entry points are given."""

    def installed(distribution: str, source: str, **schemes: str) -> None:
        directory = tmp_path / distribution
        information = directory / f"{distribution}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{scheme} = {function}" for scheme, function in schemes.items()]
        (information / "entry_points.txt").write_text("\n".join(["[langchain_kv.places]", *lines]))
        (directory / f"{distribution}.py").write_text(source)
        monkeypatch.syspath_prepend(str(directory))
        monkeypatch.delitem(sys.modules, distribution, raising=False)

    return installed


IN_MEMORY = """
from langchain_kv.places.memory import MemoryPlace

def parse(url):
    return MemoryPlace(url)
"""


def test_the_function_of_an_entry_point_is_given_the_whole_url(install: Install) -> None:
    install("outside_one", IN_MEMORY, theirs="outside_one:parse")
    assert parse_url(" Theirs://user@host?x=1\n") == MemoryPlace("Theirs://user@host?x=1")
    with KVStore("kv", "theirs:x") as store:
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]


@pytest.mark.parametrize("scheme", ["sqlite", "memory", "http", "https", "cassandra"])
def test_a_scheme_of_ours_cannot_be_replaced(install: Install, scheme: str) -> None:
    install("outside_two", "raise SystemExit('loaded')", **{scheme: "outside_two:parse"})
    assert type(parse_url({"sqlite": "sqlite:a", "memory": "memory:"}.get(scheme, f"{scheme}://h"))).__module__ in (
        "langchain_kv.places.files",
        "langchain_kv.places.memory",
        "langchain_kv.places.dataapi",
        "langchain_kv.places.clusters",
    )


def test_two_packages_with_one_scheme_are_an_error_that_names_both(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("outside_three", IN_MEMORY, doubled="outside_three:parse")
    install("outside_four", IN_MEMORY, Doubled="outside_four:parse")
    with pytest.raises(
        ConfigError, match=r"added by the package outside_four and the package outside_three: uninstall"
    ):
        parse_url("doubled:x")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if not each.endswith("outside_four")])  # the advice
    assert parse_url("doubled:x") == MemoryPlace("doubled:x")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module", "does not load: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "does not load: ZeroDivisionError: division by zero"),
        ("other = 1", "does not load: AttributeError: "),
        ("def parse(url): raise KeyError(url)", "raised KeyError."),
        ("def parse(url): return None", "returned NoneType."),
        ("def parse(): pass", "raised TypeError."),
        ("parse = 5", "raised TypeError."),
    ],
)
def test_an_entry_point_that_fails_is_named_with_its_package_and_the_url_is_not_shown(
    install: Install, source: str, says: str
) -> None:
    install("outside_five", source, failing="outside_five:parse")
    with pytest.raises(ConfigError) as caught:
        KVStore("kv", f"failing://user:{SECRET}@h")

    assert str(caught.value).startswith("The scheme failing: of the package outside_five ")
    assert "outside_five:parse" in str(caught.value)
    assert says in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_error_of_ours_that_the_function_raises_is_the_users(install: Install) -> None:
    source = "from langchain_kv import ConfigError\ndef parse(url): raise ConfigError('Write refusing:X.')"
    install("outside_six", source, refusing="outside_six:parse")
    with pytest.raises(ConfigError, match=r"^Write refusing:X\.$"):
        parse_url("refusing:")


def test_a_scheme_that_nobody_adds_is_answered_as_before(install: Install) -> None:
    install("outside_seven", IN_MEMORY, sqlite3="outside_seven:parse")
    assert parse_url("sqlite3:kv.db") == MemoryPlace("sqlite3:kv.db")
    with pytest.raises(ConfigError, match=r"did you mean sqlite:kv\.db\?"):
        parse_url("sqlite4:kv.db")

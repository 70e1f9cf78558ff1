"""A marked token is looked for after every way of failing: in texts, variables of tracebacks, logs and pickles."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import langchain_kv
from faults.proxy import Answer, Fault, Misbehaving, api_error, errors, unused_port
from langchain_kv import AstraDBStore, KVByteStore, KVStore
from langchain_kv.backends.dataapi import retry
from langchain_kv.errors import DamagedValueError, PartialWriteError, StoreError
from langchain_kv.values.secret import Secret, masked

pytestmark = pytest.mark.slow

TOKEN = "AstraCS:marked-0b5c1e7d"
PACKAGE = str(Path(langchain_kv.__file__).parent)


class Provider:
    """A token provider as a dataclass would be: its repr shows all."""

    def __init__(self, token: Any = TOKEN) -> None:
        self.token = token

    def __repr__(self) -> str:
        return f"Provider({self.token})"

    def get_token(self) -> Any:
        return self.token


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Every logger at its most talkative; none of them names the token."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    caplog.set_level(1)
    yield caplog
    assert TOKEN not in caplog.text
    assert TOKEN not in repr([record.__dict__ for record in caplog.records])


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        server.plant(a=1, b=2)
        yield server


def shown(error: BaseException, *, with_variables: bool = True) -> str:
    """Return all that a crash reporter would send of an error: texts, attributes, and our frames' variables."""
    texts: list[str] = []
    seen: set[int] = set()

    def visit(one: BaseException) -> None:
        if id(one) in seen:
            return
        seen.add(id(one))
        texts.extend([str(one), repr(one), repr(one.args), repr(vars(one))])
        captured = traceback.TracebackException.from_exception(one, capture_locals=True)
        frames = [frame for frame in captured.stack if frame.filename.startswith(PACKAGE)]
        if with_variables:
            texts.extend(f"{frame.name}: {frame.locals}" for frame in frames)
        others = [one.__cause__, one.__context__]
        if isinstance(one, PartialWriteError):
            others += one.errors.values()
        for other in others:
            if other is not None:
                visit(other)

    visit(error)
    if isinstance(error, StoreError):
        texts.append(pickle.dumps(error).decode("latin-1"))
        texts.append(repr(pickle.loads(pickle.dumps(error))))
    return "\n".join(texts)


def raised(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is
        call()
    return caught.value


def assert_hidden(error: BaseException, *, with_variables: bool = True) -> None:
    text = shown(error, with_variables=with_variables)
    assert TOKEN not in text, [line for line in text.splitlines() if TOKEN in line][:3]


def test_the_search_finds_what_a_frame_of_the_package_holds() -> None:
    code = compile("def fail(token):\n    raise ValueError\n", f"{PACKAGE}/made_up.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    assert TOKEN in shown(raised(lambda: names["fail"](TOKEN)))
    assert TOKEN not in shown(raised(lambda: names["fail"](masked(TOKEN))))


# -- making a store -----------------------------------------------------------------------------------------------

BAD: dict[str, dict[str, Any]] = {
    "collection": {"collection": "no name"},
    "no endpoint": {"url": None},
    "scheme": {"url": "ftp://x"},
    "host": {"url": "https://<host>"},
    "query": {"url": "https://x?a=b"},
    "keyspace": {"keyspace": "no name"},
    "environment": {"environment": "moon"},
    "seconds": {"deadline_s": -1},
    "callers": {"ext_callers": [1]},
    "mode": {"setup_mode": "NEVER"},
    "refused": {"url": f"http://127.0.0.1:{unused_port()}", "deadline_s": 0.01},
    "sqlite folder": {"url": "sqlite:/nowhere/at/all.db"},
}


@pytest.mark.parametrize("as_what", ["text", "provider", "environment", "api_options"])
@pytest.mark.parametrize("bad", BAD)
def test_a_store_that_cannot_be_made_hides_its_token(bad: str, as_what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"collection": "c", "url": "http://127.0.0.1:1", "deadline_s": 0.01, **BAD[bad]}
    if as_what == "environment":
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", TOKEN)
    elif as_what == "api_options":
        arguments["api_options"] = SimpleNamespaceHidden(token=TOKEN, database_additional_headers={"X-Key": TOKEN})
    else:
        arguments["token"] = TOKEN if as_what == "text" else Provider()
    assert_hidden(raised(lambda: KVStore(**arguments)))
    arguments["api_endpoint"] = arguments.pop("url")
    arguments["collection_name"] = arguments.pop("collection")
    assert_hidden(raised(lambda: AstraDBStore(**arguments)))


class SimpleNamespaceHidden(SimpleNamespace):
    """An astrapy APIOptions masks its token too."""

    def __repr__(self) -> str:
        return "APIOptions(...)"


@pytest.mark.parametrize("token", [TOKEN + "\n", TOKEN + "é", TOKEN.encode(), [TOKEN], Provider(TOKEN + "\n")])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: Any) -> None:
    assert_hidden(raised(lambda: KVStore("c", "http://127.0.0.1:1", token=token)))


@pytest.mark.parametrize("name", ["tokn", "requested_indexing_policy"])
def test_a_token_under_a_mistyped_name_is_hidden(name: str) -> None:
    assert_hidden(raised(lambda: AstraDBStore("c", api_endpoint="memory:", **{name: TOKEN})))


def test_a_clients_token_is_hidden() -> None:
    class Client:
        base_url, token, namespace = "http://127.0.0.1:1", TOKEN, "no name"

    assert_hidden(raised(lambda: AstraDBStore("c", astra_db_client=Client())))


def test_a_header_that_cannot_be_sent_is_refused_without_being_shown() -> None:
    options = SimpleNamespaceHidden(database_additional_headers={"X-Key": TOKEN + "\n"})
    assert_hidden(raised(lambda: KVStore("c", "http://127.0.0.1:1", api_options=options)))


# -- using it -----------------------------------------------------------------------------------------------------


def faults(text: str) -> dict[str, Answer | Fault]:
    """Return what a service may do; where it has words, these."""
    return {
        "reset": Fault("reset"),
        "reset after": Fault("reset", applied=True),
        "stall": Fault("stall"),
        "drip": Fault("drip"),
        "truncated": Fault("truncate", applied=True),
        "garbled": Fault("garble", applied=True),
        **{str(status): Answer(status, f"<title>{text}</title>".encode()) for status in STATUSES},
        "not json": Answer(200, text.encode()),
        "no envelope": Answer(200, b"[]"),
        **{
            code: errors(api_error(code, scope=scope, family="REQUEST", message=text, title=text))
            for code, scope in CODES.items()
        },
    }


STATUSES = (301, 307, 400, 401, 403, 413, 415, 429, 500, 502, 503, 504)
CODES = {
    "UNAUTHENTICATED_REQUEST": "SECURITY",
    "UNKNOWN_COLLECTION_OR_TABLE": "SCHEMA",
    "UNKNOWN_KEYSPACE": "SCHEMA",
    "SHRED_DOC_LIMIT_VIOLATION": "DOCUMENT",
    "OF_LATER": "DATABASE",
    "EXISTING_COLLECTION_DIFFERENT_SETTINGS": "SCHEMA",
    "UNAVAILABLE_DATABASE": "DATABASE",
}
QUIET, ECHOING = faults("no"), faults(f"the token {TOKEN} is not good")
CALLS: dict[str, Callable[[Any], Any]] = {
    "mget": lambda store: store.mget(["a"]),
    "mset": lambda store: store.mset([("a", 1)]),
    "mset many": lambda store: store.mset([(f"k{n}", n) for n in range(120)]),
    "mdelete": lambda store: store.mdelete(["a", "b"]),
    "yield_keys": lambda store: list(store.yield_keys()),
    "yield_items": lambda store: list(store.yield_items()),
}
ACALLS: dict[str, Callable[[Any], Any]] = {
    "amget": lambda store: store.amget(["a"]),
    "amset": lambda store: store.amset([(f"k{n}", n) for n in range(120)]),
    "amdelete": lambda store: store.amdelete(["a", "b"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", QUIET)
def test_whatever_the_service_does_the_token_is_hidden(server: Misbehaving, fault: str) -> None:
    for token in (TOKEN, Provider()):
        server.script = lambda request: QUIET[fault]
        for error in failures(server.url, token):
            assert_hidden(error)
        # Its own words stand in the variables that hold its answer; the error leaves the token out of them.
        server.script = lambda request: ECHOING[fault]
        for error in failures(server.url, token):
            assert_hidden(error, with_variables=False)
    assert server.requests[-1].headers["token"] == TOKEN


def failures(url: str, token: Any) -> Iterator[BaseException]:
    arguments: Any = {"token": token, "request_timeout_s": 0.1, "deadline_s": 0.05}
    with KVStore("c", url, setup_mode="OFF", **arguments) as store:
        for call in CALLS.values():
            yield raised(partial(call, store))
    for call in ACALLS.values():
        with KVStore("c", url, setup_mode="OFF", **arguments) as store:
            yield raised(partial(run, call, store))
    yield raised(lambda: KVStore("c", url, **arguments))


def run(call: Callable[[Any], Any], store: Any) -> Any:
    return asyncio.run(call(store))


def test_asyncio_in_debug_mode_shows_no_token(server: Misbehaving) -> None:
    async def main() -> None:
        async with KVStore("c", server.url, token=TOKEN) as store:
            await store.amset([("a", 1)])

    asyncio.run(main(), debug=True)


def test_a_wrong_call_and_a_damaged_value_hide_the_token(server: Misbehaving) -> None:
    server.documents["bad"] = '{"_id": "bad", "value": "not base64!"}'
    with KVByteStore("c", server.url, token=TOKEN) as store:
        error = raised(lambda: store.mget(["bad"]))
        assert isinstance(error, DamagedValueError)
        assert_hidden(error)
        for keys in ([""], [1], "text", ["x" * 9000]):
            assert_hidden(raised(lambda keys=keys: store.mget(keys)))
        assert_hidden(raised(lambda: store.mset([("a", object())])))
    assert_hidden(raised(lambda: store.mget(["a"])))


# -- at rest ------------------------------------------------------------------------------------------------------


def reachable(thing: Any) -> str:
    """Return the reprs of all that can be reached from an object by its attributes, within this package."""
    seen: dict[int, Any] = {}
    texts: list[str] = []

    def visit(one: Any) -> None:
        if id(one) in seen:
            return
        seen[id(one)] = one
        texts.append(repr(one))
        if type(one).__module__.startswith("langchain_kv"):
            state = getattr(one, "__dict__", {})
            texts.append(repr(state))
            for value in state.values():
                visit(value)

    visit(thing)
    return "\n".join(texts)


@pytest.mark.parametrize("token", [TOKEN, Provider()])
def test_no_object_shows_the_token(server: Misbehaving, token: Any) -> None:
    options = SimpleNamespaceHidden(database_additional_headers={"X-Key": TOKEN})
    with AstraDBStore("c", token=token, api_endpoint=server.url, api_options=options) as store:
        store.mget(["a"])
        assert TOKEN not in reachable(store)
        assert TOKEN not in pickle.dumps(store).decode("latin-1")
        with copy.deepcopy(store) as copied:
            assert copied.mget(["a"]) == [1]
    assert server.requests[-1].headers["token"] == TOKEN
    assert server.requests[-1].headers["x-key"] == TOKEN


def test_a_secret_is_a_text_that_is_neither_shown_nor_pickled() -> None:
    secret = masked(TOKEN)
    assert isinstance(secret, Secret)
    assert secret == TOKEN
    assert f"{secret}" == str(secret) == TOKEN
    assert copy.deepcopy([secret]) == [TOKEN]
    for each in (secret, masked(Provider())):
        assert TOKEN not in repr(each)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(each)


# -- the server and the command -----------------------------------------------------------------------------------


def test_the_server_shows_its_token_nowhere(tmp_path: Path) -> None:
    from langchain_kv.engines.memory import MemoryEngine
    from langchain_kv.server.http.app import DataAPI
    from langchain_kv.server.http.running import run_in_thread, serve

    assert TOKEN not in reachable(DataAPI(MemoryEngine(), TOKEN))
    for start in (
        lambda: run_in_thread(MemoryEngine(), TOKEN, "no.such.host.invalid").__enter__(),
        lambda: serve(DataAPI(MemoryEngine(), TOKEN), "no.such.host.invalid", 0, print),
    ):
        assert_hidden(raised(start))


def test_a_request_that_fails_shows_no_token(caplog: pytest.LogCaptureFixture) -> None:
    import http.client

    from langchain_kv.engines.memory import MemoryEngine
    from langchain_kv.server.http.app import DataAPI
    from langchain_kv.server.http.connections import HttpRequest
    from langchain_kv.server.http.running import run_app_in_thread

    class Failing(DataAPI):
        async def answer(self, request: HttpRequest) -> Answer:
            raise ZeroDivisionError(str(request.headers))

    with run_app_in_thread(Failing(MemoryEngine(), TOKEN)) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.request("POST", "/v1", b"{}", {"Token": TOKEN, "X-Name": "value"})
        assert connection.getresponse().status == 500
        connection.close()
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert error is not None
    assert_hidden(error)
    assert "x-name" in shown(error)


@pytest.mark.slow
def test_a_server_logs_no_token(tmp_path: Path) -> None:
    import http.client

    from langchain_kv.places.embedded import release_engine
    from langchain_kv.server.http.running import run_in_thread
    from places import acquire_engine

    engine = acquire_engine(f"sqlite:{tmp_path / 'kv.db'}")
    with run_in_thread(engine, TOKEN) as url:
        for token in (TOKEN, TOKEN + "x", ""):
            for body in (b"", b"{", b'{"find":{}}', b'{"insertOne":{"document":{"$":1}}}'):
                connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
                connection.request("POST", "/v1/default_keyspace/c", body, {"Token": token})
                response = connection.getresponse()
                assert TOKEN not in f"{response.getheaders()}{response.read()!r}"
                connection.close()
        engine.close()
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.request("POST", "/v1/default_keyspace/c", b'{"find":{}}', {"Token": TOKEN})
        assert TOKEN not in repr(connection.getresponse().read())
        connection.close()
    release_engine(engine)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["get", "--help"], ["serve", "--help"], ["get"], ["get", "a"], ["nothing"],
        ["get", "a", "--collection", "c", "--db", "URL"], ["get", "a", "--collection", "c", "--db", "URL", "--token",
         TOKEN],
        ["get", "a", "--collection", "c", "--db", "URL", "--token", "@FILE"],
        ["set", "a", "1", "--collection", "c", "--db", "URL", "--token", "@FILE"],
        ["keys", "--collection", "no name", "--db", "URL"], ["get", "a", "--collection", "c", "--db", "ftp://x"],
        ["serve", "--db", "sqlite:/nowhere/x.db"], ["serve", "--host", "0.0.0.0", "--token", TOKEN],
        ["serve", "--host", "no.such.host.invalid", "--token", "@FILE"],
    ],
)  # fmt: skip
def test_the_command_prints_no_token(server: Misbehaving, arguments: list[str], tmp_path: Path) -> None:
    server.script = lambda request: ECHOING["UNAUTHENTICATED_REQUEST"]
    (tmp_path / "token").write_text(TOKEN)
    changed = [{"URL": server.url, "@FILE": f"@{tmp_path / 'token'}"}.get(each, each) for each in arguments]
    environment = {"ASTRA_DB_APPLICATION_TOKEN": TOKEN, "LCKV_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "langchain_kv.cli", *changed],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) is ("--help" in arguments)


def test_the_fixtures_failures_hide_what_they_are_given(data_api: Any) -> None:
    store = data_api.store("c", setup_mode="OFF", deadline_s=0.05)
    data_api.fail(None, status=503)
    assert data_api.token not in shown(raised(lambda: store.mget(["a"])))

"""The Data API backend over time: event loops, threads, forks, cancellation, closing, the end of the process."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.proxy import Fault, Misbehaving
from langchain_kv.backends.base import Found, Record
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.errors import ConnectError, StoreClosedError

TIMEOUT_S = 30
FOUND = [Found(1)]


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        server.plant(a=1)
        yield server


def _backend(server: Misbehaving, **more: Any) -> DataAPIBackend:
    given: dict[str, Any] = {"collection": "c", "keyspace": "k", "token": "t", "request_timeout_s": 5, "deadline_s": 10}
    return DataAPIBackend(server.url, **{**given, **more})


# -- event loops ------------------------------------------------------------------------------------------------


def test_five_loops_in_a_row_leave_no_socket(server: Misbehaving) -> None:
    backend = _backend(server)
    for _ in range(5):
        assert asyncio.run(backend.aget_many(["a"])) == FOUND
        server.wait_for(lambda: server.open_connections == 0)
    assert server.connections == 5
    backend.close()


def test_loops_are_not_kept_alive(server: Misbehaving) -> None:
    backend = _backend(server)

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await backend.aget_many(["a"])
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    gc.collect()
    assert loop() is None
    backend.close()


def test_loop_closed_without_its_generators_leaves_no_socket(server: Misbehaving) -> None:
    backend = _backend(server)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(backend.aget_many(["a"])) == FOUND
    loop.close()
    assert asyncio.run(backend.aget_many(["a"])) == FOUND
    server.wait_for(lambda: server.open_connections == 0)
    backend.close()
    gc.collect()


def test_sync_and_async_at_once_on_one_backend(server: Misbehaving) -> None:
    backend = _backend(server)

    async def main() -> None:
        assert await backend.aget_many(["a"]) == FOUND
        assert await asyncio.to_thread(backend.get_many, ["a"]) == FOUND
        assert backend.get_many(["a"]) == FOUND
        await backend.aclose()

    asyncio.run(main())
    server.wait_for(lambda: server.open_connections == 0)


def test_two_threads_with_a_loop_each(server: Misbehaving) -> None:
    backend = _backend(server)
    wrong: list[Any] = []

    async def work() -> None:
        for _ in range(20):
            for found in await asyncio.gather(*[backend.aget_many(["a"]) for _ in range(5)]):
                if found != FOUND:
                    wrong.append(found)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
    backend.close()
    server.wait_for(lambda: server.open_connections == 0)


def test_many_threads_share_the_loop_threads_connections(server: Misbehaving) -> None:
    backend = _backend(server)
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(30):
            if backend.get_many(["a"]) != FOUND:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not wrong
    assert server.connections <= 6
    backend.close()


# -- cancellation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["get", "put", "delete", "scan"])
async def test_cancelled_call_leaves_no_task_and_no_connection_in_use(server: Misbehaving, verb: str) -> None:
    backend = _backend(server)
    server.script = lambda request: Fault("stall")
    keys = [f"k{number}" for number in range(300)]
    records = [Record(key, b"1") for key in keys]

    async def scan() -> None:
        async for _ in backend.ascan("", values=False):
            pass

    calls: dict[str, Any] = {
        "get": lambda: backend.aget_many(keys),
        "put": lambda: backend.aput_many(records),
        "delete": lambda: backend.adelete_many(keys),
        "scan": scan,
    }
    task = asyncio.create_task(calls[verb]())
    await asyncio.to_thread(server.wait_for, lambda: server.in_flight > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    server.script = lambda request: None
    assert await backend.aget_many(["a"]) == FOUND
    await backend.aclose()


async def test_cancelled_put_sends_nothing_more(server: Misbehaving) -> None:
    backend = _backend(server)
    server.delay_s = 0.05
    records = [Record(f"k{number}", b"1") for number in range(3000)]
    task = asyncio.create_task(backend.aput_many(records))
    await asyncio.to_thread(server.wait_for, lambda: len(server.requests) > 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await backend.aclose()
    await asyncio.to_thread(server.wait_for, lambda: server.open_connections == 0)
    assert len(server.requests) < 30  # the first chunk, and what was under way: not all


# -- closing ----------------------------------------------------------------------------------------------------


def test_close_ends_only_what_no_other_backend_uses(server: Misbehaving) -> None:
    first, second = _backend(server), _backend(server, collection="d")
    first.get_many(["a"])
    second.get_many(["a"])
    assert server.connections == 1
    first.close()
    first.close()
    assert second.get_many(["a"]) == FOUND
    assert server.connections == 1
    second.close()
    server.wait_for(lambda: server.open_connections == 0)


def test_other_certificates_are_another_pool(server: Misbehaving, tmp_path: Path) -> None:
    import certifi

    first, second = _backend(server), _backend(server, ca_file=certifi.where())
    first.get_many(["a"])
    second.get_many(["a"])
    assert server.connections == 2
    first.close()
    second.close()


def test_backend_that_never_sent_anything_closes(server: Misbehaving) -> None:
    _backend(server).close()
    asyncio.run(_backend(server).aclose())


def test_close_from_another_thread_ends_a_running_loops_connections(server: Misbehaving) -> None:
    backend = _backend(server)

    async def main() -> None:
        await backend.aget_many(["a"])
        await asyncio.to_thread(backend.close)
        await asyncio.to_thread(server.wait_for, lambda: server.open_connections == 0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others or not (await asyncio.wait(others, timeout=TIMEOUT_S))[1]

    asyncio.run(main())


async def test_close_on_a_running_loop_ends_its_connections(server: Misbehaving) -> None:
    backend = _backend(server)
    await backend.aget_many(["a"])
    backend.close()
    await asyncio.to_thread(server.wait_for, lambda: server.open_connections == 0)
    with pytest.raises(StoreClosedError):
        await backend.aget_many(["a"])


def test_aclose_ends_the_loop_threads_connections_too(server: Misbehaving) -> None:
    backend = _backend(server)
    backend.get_many(["a"])
    asyncio.run(backend.aclose())
    server.wait_for(lambda: server.open_connections == 0)


async def test_closing_under_a_request_is_told_as_closing(server: Misbehaving) -> None:
    backend = _backend(server)
    server.script = lambda request: Fault("stall")
    task = asyncio.create_task(backend.aget_many(["a"]))
    await asyncio.to_thread(server.wait_for, lambda: server.in_flight > 0)
    await backend.aclose()
    with pytest.raises(StoreClosedError):
        await task


def test_closed_target_opens_again_for_a_new_backend(server: Misbehaving) -> None:
    for _ in range(3):
        backend = _backend(server)
        assert backend.get_many(["a"]) == FOUND
        backend.close()
    server.wait_for(lambda: server.open_connections == 0)


def test_backend_is_not_pickled(server: Misbehaving) -> None:
    with pytest.raises(TypeError, match="pickle the store"):
        pickle.dumps(_backend(server))


def test_secrets_are_not_in_the_repr(server: Misbehaving) -> None:
    shown = repr(_backend(server, token="marked-token", headers={"X": "marked-header"}))
    assert "marked" not in shown


def test_no_secure_connection_to_a_plain_server_is_final() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(10_000)

        threading.Thread(target=answer, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        backend = DataAPIBackend(url, collection="c", keyspace="k", token="t", deadline_s=10)
        with pytest.raises(ConnectError, match="No secure connection") as caught:
            backend.get_many(["a"])
    assert not caught.value.retryable
    backend.close()


# -- processes --------------------------------------------------------------------------------------------------


def _in_python(server: Misbehaving, code: str) -> tuple[int, str, str]:
    head = f"""
        import asyncio, gc, os, sys, threading
        from langchain_kv.backends.base import Found
        from langchain_kv.backends.dataapi.backend import DataAPIBackend
        def backend(**more):
            given = dict(collection="c", keyspace="k", token="t", request_timeout_s=3, deadline_s=3)
            return DataAPIBackend({server.url!r}, **(given | more))
        found = [Found(1)]
    """
    program = textwrap.dedent(head) + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


NO_UVLOOP = "sys.modules['uvloop'] = None\n"


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", NO_UVLOOP], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_fork_harms_neither_side(server: Misbehaving, end: str, prelude: str) -> None:
    code = f"""
        kv = backend()
        kv.get_many(["a"])
        for _ in range(3):
            child = os.fork()
            if child == 0:
                assert kv.get_many(["a"]) == found
                gc.collect()
                assert asyncio.run(kv.aget_many(["a"])) == found
                kv.close()
                {end}
            assert os.waitpid(child, 0)[1] == 0
            assert kv.get_many(["a"]) == found
        print("parent", {prelude == ""} or "asyncio")
        kv.close()
    """
    returncode, out, err = _in_python(server, prelude + textwrap.dedent(code))
    assert (returncode, err) == (0, "")
    assert out.startswith("parent")
    # The parent's connection lived through it: one of its own, and two for each child.
    assert server.connections == 7


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", NO_UVLOOP], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_child_that_collects_everything_and_uses_nothing_harms_nothing(
    server: Misbehaving, end: str, prelude: str
) -> None:
    code = f"""
        kv = backend()
        kv.get_many(["a"])
        child = os.fork()
        if child == 0:
            del kv
            gc.collect()
            {end}
        assert os.waitpid(child, 0)[1] == 0
        assert kv.get_many(["a"]) == found
        kv.close()
        print("parent")
    """
    assert _in_python(server, prelude + textwrap.dedent(code)) == (0, "parent", "")
    assert server.connections == 1


@pytest.mark.slow
def test_fork_inside_a_running_loop_harms_no_connection(server: Misbehaving) -> None:
    code = """
        async def main():
            kv = backend()
            await kv.aget_many(["a"])
            child = os.fork()
            if child == 0:
                assert kv.get_many(["a"]) == found
                del kv
                gc.collect()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert await kv.aget_many(["a"]) == found
            await kv.aclose()
            print("parent")
        asyncio.run(main())
    """
    assert _in_python(server, code) == (0, "parent", "")
    assert server.connections == 2


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", NO_UVLOOP], ids=["uvloop", "asyncio"])
def test_exit_without_close_is_silent(server: Misbehaving, prelude: str) -> None:
    code = """
        kv = backend()
        kv.get_many(["a"])
        next(kv.scan("", values=False))
        asyncio.run(kv.aget_many(["a"]))
    """
    assert _in_python(server, prelude + textwrap.dedent(code)) == (0, "", "")


LEFT_SCANS = {
    "sync": "scan = store.yield_keys(); next(scan)",
    "async": """
        async def main():
            global scan
            scan = store.ayield_items()
            await anext(scan)
        asyncio.run(main())
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", NO_UVLOOP], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("scan", LEFT_SCANS)
def test_exit_in_the_middle_of_a_scan_is_silent(server: Misbehaving, scan: str, prelude: str) -> None:
    server.plant(**{f"k{number}": number for number in range(100)})
    code = f"from langchain_kv import KVStore\nstore = KVStore('c', {server.url!r}, token='t')\n"
    code += textwrap.dedent(LEFT_SCANS[scan])
    assert _in_python(server, prelude + code) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", NO_UVLOOP], ids=["uvloop", "asyncio"])
def test_exit_with_a_request_under_way_is_silent(server: Misbehaving, prelude: str) -> None:
    server.faults.extend([None, Fault("stall")])
    code = """
        import time
        kv = backend(request_timeout_s=60, deadline_s=60)
        kv.get_many(["a"])
        threading.Thread(target=kv.get_many, args=(["a"],), daemon=True).start()
        pool = kv._current_pool()
        while True:   # until the request has left
            connector = next(iter(pool._sessions.values())).session.connector
            if connector._acquired: break
            time.sleep(0.001)
    """
    assert _in_python(server, prelude + textwrap.dedent(code)) == (0, "", "")


def test_importing_the_package_imports_no_http_library() -> None:
    code = """
        import sys
        import langchain_kv.backends.base, langchain_kv.backends.engine, langchain_kv.errors
        print([name for name in ("aiohttp", "uvloop") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_interrupt_during_a_request_leaves_the_backend_usable(server: Misbehaving) -> None:
    server.faults.append(Fault("stall"))
    code = """
        import signal, time
        kv = backend(request_timeout_s=60, deadline_s=60)
        def interrupt():
            while kv._pool is None: time.sleep(0.001)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            kv.get_many(["a"])
        except KeyboardInterrupt:
            print(kv.get_many(["a"]) == found)
        kv.close()
    """
    assert _in_python(server, code) == (0, "True", "")


UNTIL_314 = pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="from Python 3.14 on no coroutine goes on in a child that is forked in it: a bare program's hangs, too",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", [*(pytest.param(end, marks=UNTIL_314) for end in ("sys.exit(0)", "return")), "os._exit(0)"]
)
def test_child_that_ends_the_loop_it_was_forked_in_harms_no_connection(server: Misbehaving, end: str) -> None:
    code = f"""
        pid = os.getpid()
        async def main():
            kv = backend()
            await kv.aget_many(["a"])
            child = os.fork()
            if child == 0:
                {end}
            assert os.waitpid(child, 0)[1] == 0
            assert await kv.aget_many(["a"]) == found
            await kv.aclose()
        asyncio.run(main())
        if os.getpid() == pid:
            print("parent")
    """
    assert _in_python(server, code) == (0, "parent", "")
    assert server.connections == 1


@pytest.mark.slow
def test_loop_that_its_user_never_closed_makes_no_noise_of_ours_at_exit(server: Misbehaving) -> None:
    code = """
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, about the loop
        kv = backend()
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(kv.aget_many(["a"])) == found
        print("done")
    """
    assert _in_python(server, code) == (0, "done", "")


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", NO_UVLOOP], ids=["uvloop", "asyncio"])
def test_closing_beside_a_loop_that_never_runs_again_is_silent_at_exit(server: Misbehaving, prelude: str) -> None:
    code = """
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, about the loop
        kv = backend()
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(kv.aget_many(["a"])) == found
        kv.close()
        loop.run_until_complete(asyncio.sleep(0))  # the session's closing has begun on it
        print("done")
    """
    assert _in_python(server, prelude + textwrap.dedent(code)) == (0, "done", "")

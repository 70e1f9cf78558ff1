"""A program of greenlets that uses stores in every way, and says what it saw. Run in a process of its own.

Arguments: gevent or eventlet; whether it patches ``first``, or after the import (``later``), or after the first use of
the package (``used``); the URL; the token; ``no-uvloop``, perhaps.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import time
from collections.abc import Callable
from typing import Any

LIBRARY, ORDER, URL, TOKEN = sys.argv[1:5]
DEAD = "http://127.0.0.1:9"
GREENLETS = 20

if "no-uvloop" in sys.argv:
    sys.modules["uvloop"] = None  # type: ignore[assignment]


def patch() -> tuple[Callable[..., Any], Callable[[float], None], Callable[[Any], Any]]:
    """Patch the process; return how to start a greenlet, to sleep in one, and to get what one returned."""
    if LIBRARY == "gevent":
        import gevent
        from gevent import monkey

        monkey.patch_all()
        return gevent.spawn, gevent.sleep, lambda greenlet: greenlet.get()
    import eventlet

    eventlet.monkey_patch()
    return eventlet.spawn, eventlet.sleep, lambda greenlet: greenlet.wait()


def main() -> None:
    """Say each thing that went well in a line."""
    faulthandler.dump_traceback_later(100, exit=True)
    if ORDER == "first":
        spawn, sleep, result = patch()
    import langchain_kv as kv

    if ORDER == "used":
        with kv.KVStore("first", URL, token=TOKEN) as used:
            used.mset([("a", 1)])
    if ORDER != "first":
        spawn, sleep, result = patch()
    ticks = [0]

    def tick() -> None:
        while True:
            ticks[0] += 1
            sleep(0.001)

    def work(number: int) -> bool:
        for turn in range(10):
            store.mset([(f"a{number}", turn), (f"b{number}", turn)])
            if store.mget([f"a{number}", f"b{number}"]) != [turn, turn]:
                return False
        return True

    def open_store(collection: str = "green", **arguments: Any) -> Any:
        return kv.KVStore(collection, URL, token=TOKEN, deadline_s=30, **arguments)

    spawn(tick)
    store = open_store()
    print("greenlets", all(result(one) for one in [spawn(work, number) for number in range(GREENLETS)]))
    print("keys", len(list(store.yield_keys())) == 2 * GREENLETS)
    with open_store(setup_mode=kv.SetupMode.ASYNC) as later:
        print("set-up", later.mget(["a1"]) == [9])

    async def coroutines() -> bool:
        await asyncio.gather(*(store.amset([(f"c{number}", number)]) for number in range(20)))
        found = await store.amget([f"c{number}" for number in range(20)])
        other = open_store("other")
        await other.aclose()
        return bool(found == list(range(20)))

    print("coroutines", asyncio.run(coroutines()))
    if URL.startswith("http"):
        before, began = ticks[0], time.monotonic()
        try:
            kv.KVStore("c", DEAD, token="t", deadline_s=1, setup_mode=kv.SetupMode.OFF).mget(["a"])
        except kv.StoreError:
            print("deadline", time.monotonic() - began < 20, "others ran", ticks[0] > before)
    child = os.fork()
    if child == 0:
        with open_store() as mine:
            mine.mset([("child", 1)])
            os._exit(0 if store.mget(["child"]) == [1] else 1)
    print("child", os.waitpid(child, 0)[1] == 0)
    print("after the fork", store.mget(["child"]) == [1])
    store.close()
    from langchain_kv.testing import DataAPIServer

    with DataAPIServer() as server, kv.KVStore("own", server.url, token=server.token, deadline_s=30) as own:
        own.mset([("a", 1)])
        print("a server of its own", own.mget(["a"]) == [1])


if __name__ == "__main__":
    main()

"""Threads and locks of our own: started, waited for, refused."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from langchain_kv.errors import StoreClosedError, StoreError
from langchain_kv.runtime import threads


def test_what_is_not_patched_is_what_there_is() -> None:
    assert threads.real("time", "sleep") is time.sleep
    assert threads.get_ident is threading.get_ident


def test_a_started_thread_is_a_daemon_with_a_name_and_ends() -> None:
    seen: list[threading.Thread] = []
    thread = threads.start(lambda: seen.append(threading.current_thread()), "mine")
    thread.join(30)
    assert not seen[0].is_alive()
    assert (seen[0].name, seen[0].daemon, seen[0].ident) == ("mine", True, thread.ident)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("can't start new thread", StoreError),
        ("can't create new thread at interpreter shutdown", StoreClosedError),
    ],
)
def test_a_refused_thread_is_an_error_that_says_why(
    message: str, error: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(error) as told:
        threads.start(int, "none")
    assert type(told.value) is error
    assert told.value.retryable is (error is StoreError)
    assert told.value.applied is False


def test_ctrl_c_within_the_start_of_a_thread_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()

    def stumble(thread: threading.Thread) -> None:
        with lock:
            lock.release()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", stumble)
    with pytest.raises(KeyboardInterrupt):
        threads.start(int, "none")


def test_a_taken_lock_is_waited_for_until_another_thread_gives_it_back() -> None:
    lock, given = threads.taken_lock(), []

    def give() -> None:
        given.append(True)
        lock.release()

    threads.start(give, "giver")
    lock.wait()
    assert given == [True]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a thread")
def test_ctrl_c_that_the_system_hands_to_another_thread_ends_the_wait() -> None:
    code = """
        import signal, threading, time
        from langchain_kv.runtime import threads
        lock = threads.taken_lock()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def interrupt():
            time.sleep(0.3)  # the wait has begun
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        threads.start(interrupt, "other")
        try:
            lock.wait()
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_condition_wakes_all_that_wait_and_the_lock_is_held_again() -> None:
    lock = threads.Lock()
    changed = threads.Condition(lock)
    waiting, woken, let = [0], [], [False]

    def wait() -> None:
        with lock:
            waiting[0] += 1
            while not let[0]:
                changed.wait(30)
            woken.append(lock.locked())

    started = [threads.start(wait, f"waiter {number}") for number in range(3)]
    while waiting[0] < 3:
        time.sleep(0)
    with lock:
        let[0] = True
        changed.notify_all()
    for thread in started:
        thread.join(30)
    assert woken == [True] * 3


def test_a_condition_that_nobody_changes_is_waited_for_so_long_and_no_longer() -> None:
    lock = threads.Lock()
    changed = threads.Condition(lock)
    with lock:
        changed.wait(0.001)
        assert lock.locked()
        changed.notify_all()  # nobody waits any more

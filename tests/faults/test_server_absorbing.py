"""The shipped server with its faults, and the client that absorbs them: each fault, each operation, sync and async."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_kv.backends.dataapi import retry
from langchain_kv.errors import AuthError, BadReplyError, StoreError
from langchain_kv.testing import DataAPIServer

pytestmark = pytest.mark.slow

PAIRS = [(f"k{n:03}", {"n": n}) for n in range(150)]
KEYS = [key for key, _ in PAIRS]

PASSING: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "retry_after_s": 0},
    "503": {"status": 503},
    "503 applied": {"status": 503, "applied": True},
    "code": {"code": "UNAVAILABLE_DATABASE"},
    "code applied": {"code": "TIMEOUT_WRITING_DATA", "applied": True},
    "dropped": {"drop": True},
    "dropped applied": {"drop": True, "applied": True},
    "slow": {"delay_s": 0.05},
    "too slow": {"delay_s": 3600, "applied": True},
}


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_of_each_operation_is_absorbed(data_api: DataAPIServer, face: Any, fault: str) -> None:
    store = face(data_api.store("kv", setup_mode="ASYNC", request_timeout_s=0.5 if fault == "too slow" else 30))
    is_repeated = fault != "slow"

    def failing(times: int = 1) -> int:
        data_api.fail(times, **PASSING[fault])
        return len(data_api.requests) + is_repeated * times

    before = failing()
    store.mset(PAIRS)  # makes the collection too
    assert len(data_api.requests) - before == 4  # findCollections, createCollection, two of 100 and of 50
    before = failing(2)
    assert store.mget([*KEYS, "none"]) == [*(value for _, value in PAIRS), None]
    assert len(data_api.requests) - before >= 2
    failing()
    assert sorted(store.keys("k0")) == KEYS[:100]
    before = failing(2)
    store.mdelete(KEYS[:30])
    assert len(data_api.requests) > before
    assert store.mget(KEYS[28:32]) == [None, None, {"n": 30}, {"n": 31}]
    store.close()


def test_a_fault_that_stays_ends_with_the_deadline_and_the_next_call_works(data_api: DataAPIServer, face: Any) -> None:
    store = face(data_api.store("kv", setup_mode="ASYNC", deadline_s=0.3))
    store.mset([("a", 1)])
    data_api.fail(None, status=503)
    with pytest.raises(BadReplyError, match="503") as caught:
        store.mget(["a"])
    assert caught.value.http_status == 503
    data_api.heal()

    assert store.mget(["a"]) == [1]
    store.close()


@pytest.mark.parametrize("code", ["UNAUTHENTICATED_REQUEST", "SHRED_BAD_FIELD_NAME", "A_CODE_OF_LATER"])
def test_an_error_that_does_not_pass_is_the_users_to_see_at_once(data_api: DataAPIServer, face: Any, code: str) -> None:
    store = face(data_api.store("kv", setup_mode="ASYNC"))
    store.mget(["a"])
    before = len(data_api.requests)
    data_api.fail(code=code)
    with pytest.raises(StoreError, match=code) as caught:
        store.mget(["a"])

    assert isinstance(caught.value, AuthError) is (code == "UNAUTHENTICATED_REQUEST")
    assert len(data_api.requests) == before + 1
    store.close()

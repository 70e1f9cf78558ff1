"""Celery's real workers, by the recipe's own code: processes, threads and greenlets, with a real Redis between."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import need
from langchain_kv import KVStore
from redis_node import RedisNode, missing, running_redis

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "workers.md"
TASKS = 60
TIMEOUT_S = 150
SENT = f"""
from tasks import results, work
results.mset([("of the sender", 0)])
for number in range(1, {TASKS + 1}):
    work.delay("x" * number)
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Celery does not run there")]


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    need(missing("redis"))
    with running_redis(tmp_path_factory.mktemp("broker")) as node:
        yield node


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_worker_stores_what_each_task_found(pool: str, broker: RedisNode, tmp_path: Path) -> None:
    code = RECIPE.read_text().split("<!-- file: tasks.py -->\n```python\n")[1].split("```")[0]
    (tmp_path / "tasks.py").write_text(code)
    environ = {**os.environ, "CELERY_BROKER_URL": broker.url}
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", pool, "--concurrency", "4"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log)
    try:
        subprocess.run([sys.executable, "-c", SENT], cwd=tmp_path, env=environ, check=True, timeout=TIMEOUT_S)
        with KVStore("results", f"sqlite:{tmp_path}/results.db") as results:
            end = time.monotonic() + TIMEOUT_S
            while results.count() <= TASKS and time.monotonic() < end:
                assert worker.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.05)
            found = results.mget(["x" * number for number in range(1, TASKS + 1)])
    finally:
        worker.terminate()
        worker.wait(60)
    assert found == [{"length": number} for number in range(1, TASKS + 1)]
    assert worker.returncode == 0, (tmp_path / "log").read_text()

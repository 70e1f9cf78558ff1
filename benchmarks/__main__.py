"""Run the rows, print each as it ends, and write docs/performance.md with its chart.

``python -m benchmarks`` takes less than half an hour; ``--full`` runs every size, latency and colour; ``--only TEXT``
runs the rows whose name holds the text, and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import contenders, extremes, pauses, report, server_load, services, targets
from benchmarks.contenders import Contender
from benchmarks.measure import compare
from benchmarks.report import Result
from benchmarks.rows import CALLS, SIZES, WORKLOADS, Workload, subject

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
MARKS = ("<!-- figures: made by make bench -->", "<!-- end of figures -->")

BATCHES = ("mset new", "mset existing", "mset half", "mget", "mget half", "mdelete")
EMBEDDINGS = ("cached embeddings, cold", "cached embeddings, warm")
CHANGED = ("mset existing, after new ones", "mset new, after existing ones")
LISTS = ("keys", "keys by prefix")
SINGLES = ("get one", "set one new", "set one existing")
AT_ONCE = "get one, 64 at once"
LISTED = 2000
"""Keys that the rows of listing have."""
SLOW_CALLS = 5
"""One-key calls in a sample where each takes a tenth of a second."""

Plan = list[tuple[str, str, str]]
"""Workload, size, colour."""

Open = Callable[[str, bool], dict[str, Contender]]
"""Makes the contenders on something empty: its name, and whether values are bytes."""


BOTH = ("sync", "async")


def _plan(*, full: bool, sizes: tuple[str, ...], colours: tuple[str, ...] = BOTH) -> Plan:
    plan: Plan = []
    plan += itertools.product(BATCHES, sizes, colours)
    plan += itertools.product(LISTS, ("vector",), colours)
    plan += itertools.product(SINGLES, ("1 KB", *(("100 B", "vector") if full else ())), colours)
    if "async" in colours:
        plan.append((AT_ONCE, "1 KB", "async"))
    return plan


def _bytes_plan(*, full: bool) -> Plan:
    some = _plan(full=full, sizes=tuple(SIZES) if full else ("1 KB",), colours=BOTH if full else ("sync",))
    if not full:
        some += [(name, "1 MB", "sync") for name in ("mset new", "mget")]
    return some + [(name, "vector", "sync") for name in EMBEDDINGS]


def _http_plan(delay_ms: int, *, full: bool) -> Plan:
    """At 40 ms a row may take minutes, and listing has a slow peer: one colour of some tells enough."""
    plan = _plan(
        full=full,
        sizes=tuple(SIZES) if full and not delay_ms else ("1 KB",),
        colours=BOTH if full or delay_ms < 40 else ("async",),
    )
    plan += [(name, "1 KB", colour) for name in CHANGED for colour in (BOTH if full else ("async",))]
    if not full:
        plan = [row for row in plan if row[0] not in LISTS or row[2] == "async" or (row[0] == "keys" and not delay_ms)]
    if not delay_ms and not full:
        plan += itertools.product(("mset new", "mget"), ("vector", "1 MB"), ("async",))
    if delay_ms == 40 and not full:
        plan = [row for row in plan if row[0] in ("mset new", "mset existing", "mget", "mdelete", *SINGLES[:2])]
    return plan


def _workload(group: str, name: str) -> Workload:
    found = WORKLOADS[name]
    if name == "keys by prefix" and group.startswith("On a file"):
        return found._replace(calls=CALLS)  # one takes a tenth of a millisecond, most of it for cold caches
    if " 40 ms" in group and found.calls and not found.at_once:
        return found._replace(calls=SLOW_CALLS)
    return found


def _measure(group: str, plan: Plan, opened: Open, *, raw: bool, rounds: int, limit_s: float) -> Iterator[Result]:
    for number, (name, size, colour) in enumerate(plan):
        workload, kind = _workload(group, name), SIZES[size]
        value = kind.bytes if raw else kind.json
        n = LISTED if name in LISTS else kind.batch
        rivals = opened(f"{number}", raw)
        try:
            subjects = [
                subject(who, rival, workload, value, n, is_async=colour == "async") for who, rival in rivals.items()
            ]
            if colour == "async":
                with asyncio.Runner() as runner:
                    figures = compare(subjects, rounds=rounds, runner=runner, limit_s=limit_s)
                    for rival in rivals.values():
                        runner.run(rival.aclose())
            else:
                figures = compare(subjects, rounds=rounds, limit_s=limit_s)
        finally:
            for rival in rivals.values():
                rival.close()
        yield Result(group, name, size, colour, workload.calls if not workload.at_once else 0, figures)


@contextmanager
def _http(target: str, delay_ms: int, *, peers: bool) -> Iterator[Open]:
    with services.data_api(target) as (url, _), services.latency(url, delay_ms / 1000) as slow_url:
        yield lambda name, raw: contenders.over_http(slow_url, f"{delay_ms}_{name}", raw=raw, peers=peers)


def _rows(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    full = options.full
    with ExitStack() as stack:
        redis_url = None
        try:
            redis_url = stack.enter_context(services.redis(folder))
        except FileNotFoundError as error:
            print(f"RedisStore is left out: {error}", file=sys.stderr)
        wanted = (lambda plan: [row for row in plan if options.only in " ".join(row)]) if options.only else list
        run = {"rounds": options.rounds, "limit_s": 300.0 if full else 5.0}
        if "file" in options.targets:
            every = _plan(full=full, sizes=tuple(SIZES) if full else ("1 KB",))
            if not full:
                every += [(name, "vector", "sync") for name in ("mset new", "mset existing", "mget")]
            counter = itertools.count()

            def on_file(name: str, raw: bool) -> dict[str, Contender]:
                return contenders.embedded(folder / f"{next(counter)}", redis_url, raw=raw, peers=not options.no_peers)

            yield from _measure("On a file, JSON values", wanted(every), on_file, raw=False, **run)
            yield from _measure("On a file, bytes", wanted(_bytes_plan(full=full)), on_file, raw=True, **run)
        if "http" in options.targets:
            for delay_ms in options.delays:
                with _http("memory:", delay_ms, peers=not options.no_peers) as opened:
                    group = f"Over HTTP, {delay_ms} ms added each way"
                    yield from _measure(group, wanted(_http_plan(delay_ms, full=full)), opened, raw=False, **run)
                    if not delay_ms:
                        plan = wanted([(name, "vector", "sync") for name in EMBEDDINGS])
                        yield from _measure("Over HTTP, bytes", plan, opened, raw=True, **run)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every size, latency and colour: hours")
    parser.add_argument("--only", default="", help="rows whose name holds this text; writes no page")
    parser.add_argument("--targets", nargs="+", default=["file", "http"], choices=["file", "http"])
    parser.add_argument("--delays", nargs="+", type=int, default=[0, 5, 40], metavar="MS")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of a row (at least 15 unless fewer are asked)")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("astrapy").setLevel(logging.ERROR)
    started = time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks") as folder:
        for result in _rows(options, Path(folder)):
            results.append(result)
            print(f"{time.monotonic() - started:6.0f} s", report.markdown([result]), flush=True)
        more: list[str] = []
        if not options.only:
            place = Path(folder)
            more = [extremes.beside_a_large_read(place), pauses.pauses(place), extremes.listings(place)]
            more.append(server_load.report())
        print(*more, sep="\n")
    more = [targets.table(results), report.worst(results), *more]
    print(*more[:2], sep="\n")
    print(f"{len(results)} rows in {time.monotonic() - started:.0f} s")
    if not options.only and not options.no_peers:
        _write(results, more)


def _write(results: list[Result], more: list[str]) -> None:
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    parts = [MARKS[0], "", f"Measured {report.machine()}.", "", *more, report.markdown(results), MARKS[1]]
    PAGE.write_text(before + "\n".join(parts) + after, "utf-8")
    report.chart(results, PAGE.parent / "figures" / "performance.png")
    report.readme_chart(PAGE.read_text("utf-8"), PAGE.parent / "figures" / "why.png")


if __name__ == "__main__":
    main()

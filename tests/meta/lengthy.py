"""The tests that the fast suite leaves out because they take longer than a moment: a list, renewed by ``make lengthy``.

Without it there were thousands of tests of a tenth of a second in the fast suite, which took six minutes.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from xml.etree import ElementTree

LIST = Path(__file__).parent.parent / "data" / "lengthy.txt"
MOMENT_S = 0.02
"""What a test may take on the mean of its parameters, three at a time on two cores."""


def lengthy() -> frozenset[str]:
    """Return the names of these tests: FILE::FUNCTION or FILE::CLASS::FUNCTION."""
    return frozenset(LIST.read_text().split())


def measured(report: Path) -> dict[str, list[float]]:
    """Return the seconds that each test took, with each of its parameters, of a report in JUnit's form."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        *modules, last = case.attrib["classname"].split(".")
        within = f"{'/'.join(modules)}.py::{last}" if last[0].isupper() else f"{'/'.join([*modules, last])}.py"
        function = case.attrib["name"].partition("[")[0]
        seconds[f"{within}::{function}"].append(float(case.attrib["time"]))
    return seconds


if __name__ == "__main__":
    times = measured(Path(sys.argv[1]))
    names = sorted(name for name, seconds in times.items() if mean(seconds) > MOMENT_S)
    LIST.write_text("".join(f"{name}\n" for name in names))
    left = [seconds for name, some in times.items() if name not in set(names) for seconds in some]
    print(f"{len(left):,} tests of {sum(left):,.0f} s are left of {sum(map(len, times.values())):,}")

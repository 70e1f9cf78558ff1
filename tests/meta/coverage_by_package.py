"""Prints a table of what the tests reached of each package, from coverage's JSON report."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath

COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def main(report: Path) -> None:
    packages: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    for name, file in json.loads(report.read_text())["files"].items():
        inside = PurePosixPath(name.replace("\\", "/").partition("langchain_kv/")[2])
        package = inside.parts[0] if len(inside.parts) > 1 else "(the modules at the top)"
        is_apart = "cassandra" in str(inside) or inside.name == "clusters.py"
        if is_apart:
            package = "Cassandra's modules (their tests run by `make test-cassandra`)"
        for each in (package,) if is_apart else (package, "all but Cassandra's"):
            for count in COUNTS:
                packages[each][count] += file["summary"][count]
    print("| Package | Lines | reached | Branches | reached |\n|---|---|---|---|---|")
    for package, counts in sorted(packages.items(), key=lambda item: (item[0].startswith("all"), item[0])):
        lines, lines_reached, branches, branches_reached = (counts[count] for count in COUNTS)
        cells = (lines, share(lines_reached, lines), branches, share(branches_reached, branches))
        print(f"| {package} | " + " | ".join(map(str, cells)) + " |")


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

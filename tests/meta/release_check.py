"""``make release-check``: a release's dry run builds, checks and tries what would be uploaded. It uploads nothing."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?P<why><!-- not run: [^>]+ -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
README_NEEDS = ("langchain-classic", "langchain-text-splitters", "numpy")
"""What README's blocks import beside the package: a user of these recipes has them."""


def main() -> int:
    """Run every step; return the number of problems, each of which was printed."""
    problems = version_problems()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "dist", PROJECT)
        sdist, wheel = (next((directory / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
        say(f"built {sdist.name} and {wheel.name}")
        run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
        say("twine finds nothing wrong with their metadata")
        problems += content_problems(sdist, wheel)
        try_in_an_empty_environment(wheel, directory)
    for problem in problems:
        print(f"problem: {problem}")
    return min(len(problems), 1)


def version_problems() -> list[str]:
    """Say what of the version and the notes on it is not ready."""
    version = re.search(r'__version__ = "([^"]+)"', (PROJECT / "src/langchain_kv/_version.py").read_text())
    assert version is not None
    headings = re.findall(r"^## \[([^\]]+)\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (PROJECT / "CITATION.cff").read_text(), re.MULTILINE)
    problems = []
    if version[1] not in headings and "Unreleased" not in headings:
        problems.append(f"CHANGELOG.md has neither a part on {version[1]} nor an unreleased one")
    if cited is None or cited[1] != version[1]:
        problems.append(f"CITATION.cff does not name the version {version[1]}")
    if version[1] in headings and headings[0] == "Unreleased" and unreleased_notes():
        say(f"CHANGELOG.md has unreleased notes: before the upload give them a version after {version[1]}")
    return problems


def unreleased_notes() -> str:
    """Return the text of the unreleased part of the changelog: the release notes to be."""
    text = (PROJECT / "CHANGELOG.md").read_text()
    return text.partition("## [Unreleased]")[2].partition("\n## [")[0].strip()


def content_problems(sdist: Path, wheel: Path) -> list[str]:
    """Say what is missing in the archives, or must not be there."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(next(each for each in names if each.endswith("METADATA"))))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    problems = [f"the wheel has {name}" for name in names if not name.startswith(("langchain_kv/", "langchain_kv-"))]
    problems += [f"the sdist lacks {name}" for name in ("README.md", "LICENSE", "CHANGELOG.md") if name not in packed]
    if metadata["Description-Content-Type"] != "text/markdown":
        problems.append("the description is not markdown")
    return problems


def try_in_an_empty_environment(wheel: Path, directory: Path) -> None:
    """Install the wheel alone, then what README needs, and run its blocks in an empty folder."""
    run(sys.executable, "-m", "venv", directory / "venv")
    python = directory / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    run(*pip, wheel)
    run(python, "-c", "import langchain_kv; langchain_kv.KVStore('kv', 'memory:').close()")
    say("the wheel alone installs and keeps a value")
    run(*pip, f"{wheel}[{','.join(readme_extras())}]", *README_NEEDS)
    folder = directory / "empty"
    folder.mkdir()
    blocks = [match for match in _BLOCK.finditer((PROJECT / "README.md").read_text()) if not match["why"]]
    commands = {"python": [python, "-c"], "sh": ["sh", "-e", "-c"]}
    runnable = [block for block in blocks if block["language"] in commands]
    for block in runnable:
        run(*commands[block["language"]], block["code"], cwd=folder, programs=python.parent)
    say(f"{len(runnable)} blocks of README run")


def readme_extras() -> list[str]:
    """Return the extras that README's blocks need: those of the command, and of what README shows."""
    shown = (PROJECT / "README.md").read_text()
    return ["cli", *(["langgraph"] if "LangGraphStore(" in shown else [])]


def run(*command: object, cwd: Path | None = None, programs: Path | None = None) -> None:
    """Run a command; end the check where it fails, with what it printed."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LCKV_URL")}
    path = f"{programs}{os.pathsep}{outside['PATH']}" if programs else outside["PATH"]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**outside, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(str(part) for part in command)}\n{done.stdout}")


def say(text: str) -> None:
    """Print what went well."""
    print(f"ok: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Find a CPython of a given version, or fetch it, and print the path of its interpreter: for `make test-pythons`.

    python tests/find_python.py 3.14

Taken is `python3.14` of the PATH if it is whole; else the build of that version at Maven Central (x86-64 Linux, 27 MB),
which is unpacked into `.pythons/3.14`. Without either it ends with 1 and says so: nothing was tested.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

BUILDS = {"3.11": "3.11.3-1.5.9", "3.12": "3.12.1-1.5.10", "3.13": "3.13.5-1.5.12", "3.14": "3.14.3-1.5.13"}
"""Versions of org.bytedeco:cpython, a whole CPython that others use as a library."""

PROJECT = Path(__file__).parent.parent


def works(interpreter: str, version: str) -> bool:
    """Return whether it starts, is of that version, and has what a virtual environment and the tests need."""
    script = "import ctypes, ensurepip, json, sqlite3, ssl, sys, venv; print(json.dumps(sys.version_info[:2]))"
    done = subprocess.run([interpreter, "-c", script], capture_output=True, text=True, check=False)
    return done.returncode == 0 and json.loads(done.stdout) == [int(part) for part in version.split(".")]


def fetch(version: str, folder: Path) -> str:
    """Unpack the build of a version into a folder; return the path of its interpreter."""
    with tempfile.TemporaryDirectory(dir=PROJECT, prefix=".pythons-") as temporary:
        command = ["mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"]
        artifact = f"-Dartifact=org.bytedeco:cpython:{BUILDS[version]}:jar:linux-x86_64"
        subprocess.run([*command, artifact, f"-DoutputDirectory={temporary}"], check=True, stdout=sys.stderr)
        (jar,) = Path(temporary).glob("*.jar")
        with zipfile.ZipFile(jar) as build:
            build.extractall(Path(temporary, "unpacked"))
        root = Path(temporary, "unpacked", "org", "bytedeco", "cpython", "linux-x86_64")
        for program in (root / "bin").iterdir():
            program.chmod(0o755)
        for library in root.glob("libffi.so*"):  # where the module _ctypes looks for it
            shutil.copy(library, root / "lib" / f"python{version}" / "lib-dynload")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        root.rename(folder)
    return str(folder / "bin" / f"python{version}")


def find(version: str) -> str:
    """Return the path of an interpreter of a version.

    Raises:
        LookupError: there is none, and none could be fetched.
    """
    folder = PROJECT / ".pythons" / version
    for found in (shutil.which(f"python{version}"), str(folder / "bin" / f"python{version}")):
        if found and Path(found).exists() and works(found, version):
            return found
    try:
        fetched = fetch(version, folder)
    except (KeyError, OSError, ValueError, subprocess.CalledProcessError) as error:
        raise LookupError(f"{type(error).__name__}: {error}") from None
    if not works(fetched, version):
        raise LookupError(f"{fetched} was fetched and does not work here")
    return fetched


if __name__ == "__main__":
    (wanted,) = sys.argv[1:]
    try:
        print(find(wanted))
    except LookupError as error:
        sys.exit(f"Python {wanted} is NOT TESTED: none is on the PATH, and none could be fetched ({error}).")

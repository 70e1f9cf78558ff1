"""A dump: values as lines of JSON, which people read, other programs make, and ``load`` takes back without a loss.

The first line says what it is, each other one has a value, and the last one has the number of values and the SHA-256 of
all the lines before it: where that is missing, the dump was cut off::

    {"lckv": 1, "source": "sqlite:kv.db", "collection": "kv", "keyspace": "default_keyspace", ...}
    {"key": "a", "kind": "json", "value": {"n": 1}}
    {"key": "b", "kind": "bytes", "value": "<base64>", "expires_at": <milliseconds of Unix time>}
    {"end": true, "count": 2, "sha256": "<hex>"}

``kind`` is ``json``, ``bytes``, or ``body_blob`` for an answer of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable
from itertools import chain
from typing import Any, BinaryIO, Final

import msgspec
import orjson

from langchain_kv.backends.base import Damaged, Found, Kind, Page, Stored
from langchain_kv.errors import EngineFileError, InvalidValueError, UsageError
from langchain_kv.limits import LAST_MOMENT_MS
from langchain_kv.moving.tally import Tally
from langchain_kv.values.codecs import UndecodableError, bytes_from_text, encode_json
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import parse_json

__all__ = ["FORMAT", "Dump", "dump_values"]

FORMAT: Final = 1
"""The version of the form."""

LINE_MAX_BYTES: Final = 1024 * 1024 * 1024
"""Of a line: the largest value of any target, as base64 text, takes less."""

_KINDS: Final = {"json": Kind.JSON, "bytes": Kind.BYTES, "body_blob": Kind.BODY_BLOB}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()} | {Kind.TEXT: "json", Kind.MARKED_BYTES: "bytes"}


def dump_values(
    pages: Iterable[Page],
    write: Callable[[bytes], Any],
    header: dict[str, Any],
    tally: Tally,
    *,
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Write a dump, a line at a time.

    Args:
        pages: what is to be in it.
        write: takes lines.
        header: what the first line says beside the version of the form.
        tally: its numbers grow: those that were written, and damaged ones, which are left out and counted as failed.
        watch: sees the numbers after each page.
    """
    digest = hashlib.sha256()

    def emit(line: bytes) -> None:
        digest.update(line)
        write(line)

    left = iter(pages)
    first = next(left, [])  # where there is nothing to dump, that is told before a line is written
    # What is no UTF-8, as in the name of a file, becomes an escape of JSON.
    first_line = json.dumps({"lckv": FORMAT, **header}, ensure_ascii=False, separators=(",", ":"))
    emit(first_line.encode("utf-8", "backslashreplace") + b"\n")
    for page in chain([first], left):
        for key, stored in page:
            line = _line(key, stored, tally)
            if line is not None:
                emit(line)
                tally.written += 1
        watch(tally)
    write(orjson.dumps({"end": True, "count": tally.written, "sha256": digest.hexdigest()}) + b"\n")


def _line(key: str, stored: Stored | None, tally: Tally) -> bytes | None:
    if stored is None:
        return None
    tally.read += 1
    if isinstance(stored, Damaged):
        tally.fail(key, stored.reason)
        return None
    try:
        is_bytes = stored.kind is Kind.BYTES
        value = msgspec.json.encode(stored.value) if is_bytes else encode_json(key, stored.value, decimals=True).payload
    except InvalidValueError as error:
        tally.fail(key, str(error))
        return None
    expiry = b"" if stored.expires_at_ms is None else b',"expires_at":%d' % stored.expires_at_ms
    return b'{"key":%b,"kind":"%b","value":%b%b}\n' % (orjson.dumps(key), _NAMES[stored.kind].encode(), value, expiry)


class Dump:
    """A dump that is read.

    Args:
        file: its bytes, from the beginning.

    Attributes:
        header: what its first line says.
        count: the values that were read so far.
        bytes_read: how far that is.
        problem: after all pages were read, what is wrong with the whole; empty where nothing is.
        is_cut: whether that is that its end is missing.

    Raises:
        EngineFileError: it is no dump, or of a newer form.
        UsageError: it cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.count = 0
        self.bytes_read = 0
        self.problem = ""
        self.is_cut = False
        self.header = self._header()

    def pages(self, size: int = 100) -> Generator[Page]:
        """Yield the values. What is damaged in itself comes as Damaged, under its key, or its line where it has none.

        The end says whether all of them are there: see ``problem``.
        """
        page: Page = []
        size_bytes = 0
        for line in self._lines():
            parsed = _parsed(line)
            if parsed is not None and parsed.get("end") is True and "key" not in parsed:
                yield page
                self._check(parsed)
                return
            self._digest.update(line)
            if not line.endswith(b"\n"):
                break  # a line that was cut off
            self.count += 1
            page.append(self._item(parsed))
            size_bytes += len(line)
            if len(page) >= size or size_bytes > 4 * 1024 * 1024:
                yield page
                page, size_bytes = [], 0
        yield page
        self.is_cut = True
        self.problem = f"it is cut off after {self.count:,} values: its last line is missing"

    def _header(self) -> dict[str, Any]:
        line = next(self._lines(), b"")
        self._digest.update(line)
        parsed = _parsed(line)
        form = None if parsed is None else parsed.get("lckv")
        if parsed is None or type(form) is not int or form < 1:
            raise EngineFileError(
                'This is no dump of lckv: its first line is to be {"lckv": 1, ...}, as lckv dump writes it.'
            )
        if form > FORMAT:
            raise EngineFileError(
                f"This dump is of form {form}, which a newer lckv wrote; this one reads forms up to {FORMAT}: update"
                " langchain-kv. Nothing was loaded."
            )
        return parsed

    def _lines(self) -> Generator[bytes]:
        while line := self._line():
            if len(line) > LINE_MAX_BYTES:
                raise EngineFileError(
                    f"Line {self.count + 2:,} of the dump is longer than {LINE_MAX_BYTES:,} bytes, which no value"
                    " takes: it is no dump of lckv, or damaged."
                )
            self.bytes_read += len(line)
            yield line

    def _line(self) -> bytes:
        try:
            return self._file.readline(LINE_MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"The dump cannot be read: {error.strerror or error}.") from None

    def _item(self, parsed: dict[str, Any] | None) -> tuple[str, Stored]:
        name = f"line {self.count + 1}"
        if parsed is None:
            return name, Damaged("it is not a JSON object")
        key = parsed.get("key")
        if not isinstance(key, str):
            return name, Damaged("it has no key")
        kind, moment = parsed.get("kind"), parsed.get("expires_at")
        if not isinstance(kind, str) or kind not in _KINDS:
            return key, Damaged(f"its kind is {shown(kind)}, which is none of {', '.join(_KINDS)}")
        if moment is not None and type(moment) is not int:
            return key, Damaged("its expires_at is no number of milliseconds")
        if moment is not None and moment > LAST_MOMENT_MS:
            moment = None  # as of a store's ttl_s: targets differ in what they make of such a moment
        if "value" not in parsed:
            return key, Damaged("it has no value")
        value = parsed["value"]
        if kind != "bytes":
            return key, Found(value, _KINDS[kind], moment)
        try:
            decoded = bytes_from_text(value)
        except UndecodableError:
            decoded = None
        return key, Damaged("its value is not base64 text") if decoded is None else Found(decoded, Kind.BYTES, moment)

    def _check(self, end: dict[str, Any]) -> None:
        if end.get("count") != self.count:
            self.problem = f"its last line speaks of {end.get('count')} values, and it has {self.count:,}"
        elif end.get("sha256") != self._digest.hexdigest():
            self.problem = "its SHA-256 is not that of its last line: something in it was changed"
        elif next(self._lines(), b"").strip():
            self.problem = "there is more after its last line"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = parse_json(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None

"""What is asked of Redis: each operation as batches of commands, and what their replies mean. No input or output.

A plan is a generator: it yields a batch, is sent the replies (an error is one of them), and returns the answer. Who
drives it sends the batches. A value is kept under ``PREFIX + key``: bytes as they are, a JSON value as its text after
eight characters of white space, which every reader of JSON passes over, and by which it is told from bytes; before an
answer of a model (``Kind.BODY_BLOB``) they are others. Redis removes what has expired by its clock; what has expired by
this machine's is left out, too.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from langchain_kv.backends.base import Change, Damaged, Found, Record, Stored
from langchain_kv.errors import AuthError, InvalidValueError, LimitError, PartialWriteError, StoreError, TransportError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import parse_json
from langchain_kv.values.records import Kind

__all__ = ["VALUE_MAX_BYTES", "Batch", "Listed", "Plan", "Plans", "check_size"]

T = TypeVar("T")

VALUE_MAX_BYTES: Final = 512 * 1024 * 1024
"""Bytes of a value, and of a key (source: Redis's proto-max-bulk-len)."""

_FEW: Final = 10  # values that a script may copy on the server: one command for them and their moments is quicker
_KEYS_MAX: Final = 1_000  # of one command: it holds up the server's other clients for about a millisecond
_BYTES_MAX: Final = 4 * 1024 * 1024

_JSON: Final = b"\t\r\n \t\r\n "
_ANSWER: Final = b"\t\r\n \t\r\n\t"
_ESCAPE: Final = b"\t\r\n \t\r\n\0"  # before bytes that begin with one of the three
_MARKS: Final = (_JSON, _ANSWER, _ESCAPE)


def _script(text: str) -> str:
    return " ".join(text.split())  # some are sent in a URL


# Each answers for many keys in one command, atomically. Numbers of milliseconds are exact in Lua's. A key that is not
# there any more has the moment -2: its value may have been read by a command before.
_MOMENTS: Final = _script("""
local moments = {}
for i, key in ipairs(KEYS) do
  local moment = redis.call('PEXPIRETIME', key)
  if moment ~= -1 then moments[#moments + 1] = i; moments[#moments + 1] = moment end
end
return moments""")

_READ: Final = f"local read = function() {_MOMENTS} end return {{redis.call('MGET', unpack(KEYS)), read()}}"

_ADD: Final = _script("""
local added = {}
for i, key in ipairs(KEYS) do
  local there, moment, value = redis.call('PEXPIRETIME', key), ARGV[2 * i], ARGV[2 * i + 1]
  local absent = there == -2 or (there > 0 and there <= tonumber(ARGV[1]))
  if absent and moment == '0' then redis.call('SET', key, value) end
  if absent and moment ~= '0' then redis.call('SET', key, value, 'PXAT', moment) end
  added[i] = absent and 1 or 0
end
return added""")

# The last argument is what is expected, of so many bytes (-1: nothing is), and behind it what is to be there.
_REPLACE: Final = _script("""
local bytes, moment, both = tonumber(ARGV[1]), ARGV[3], ARGV[5]
if redis.call('PEXPIRETIME', KEYS[1]) ~= tonumber(ARGV[4]) then return 0 end
if redis.call('GET', KEYS[1]) ~= (bytes >= 0 and string.sub(both, 1, bytes)) then return 0 end
local value = string.sub(both, math.max(bytes, 0) + 1)
if ARGV[2] == 'remove' then redis.call('DEL', KEYS[1])
elseif moment == '0' then redis.call('SET', KEYS[1], value)
else redis.call('SET', KEYS[1], value, 'PXAT', moment) end
return 1""")

_TOUCH: Final = _script("""
for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, ARGV[1], 'GT') end
return 1""")

_SCAN: Final = _script("""
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3], 'TYPE', 'string')
local keys, sizes = {}, {}
for _, key in ipairs(page[2]) do
  local moment = redis.call('PEXPIRETIME', key)
  local alive = moment == -1 or moment > tonumber(ARGV[4])
  if moment ~= -2 and alive == (ARGV[5] == 'alive') then
    keys[#keys + 1] = key
    if ARGV[6] == '1' then sizes[#sizes + 1] = redis.call('STRLEN', key) end
  end
end
return {page[1], keys, sizes}""")


class Batch(NamedTuple):
    """Commands that are sent together, in order.

    Attributes:
        commands: each a name and its arguments.
        is_repeatable: whether it may be sent again where the answer was lost.
        reads: whether it changes nothing.
    """

    commands: list[tuple[Any, ...]]
    is_repeatable: bool = True
    reads: bool = False


Plan = Generator[Batch, list[Any], T]
"""Yields batches, is sent their replies, returns an answer."""


class Listed(NamedTuple):
    """A step of a listing.

    Attributes:
        cursor: where the next begins; ``b"0"`` at the end.
        groups: the keys; where their values are wanted, in groups whose values are few bytes together.
    """

    cursor: bytes
    groups: list[list[str]]


class Plans:
    """The plans of one collection.

    Args:
        prefix: the text before every key.
        is_cluster: whether keys are spread over nodes, so that a command takes one.
        takes_bytes: whether commands take any bytes; else a value that is no UTF-8 is alone in its command, where it
            is the last argument or is followed by an option.
        bytes_max: how many bytes of values are sent, or read by a listing, at once.
    """

    def __init__(self, prefix: str, *, is_cluster: bool, takes_bytes: bool = True, bytes_max: int = _BYTES_MAX) -> None:
        self.prefix = prefix
        self._prefix = prefix.encode()
        self._keys_max = 1 if is_cluster else _KEYS_MAX
        self._takes_bytes = takes_bytes
        self._bytes_max = bytes_max

    def get(self, keys: Sequence[str]) -> Plan[list[Stored | None]]:
        """See ``Backend.get_many``."""
        found: list[Stored | None] = []
        now = now_ms()
        for start in range(0, len(keys), _KEYS_MAX):
            found += yield from self._read([self._key(key) for key in keys[start : start + _KEYS_MAX]], now)
        return found

    def _read(self, names: Sequence[bytes], now: int) -> Plan[list[Stored | None]]:
        if len(names) <= _FEW or self._keys_max == 1:
            groups = self._groups(names)
            replies = yield Batch([("EVAL", _READ, len(group), *group) for group in groups], reads=True)
        else:
            replies = [(yield Batch([("MGET", *names), ("EVAL", _MOMENTS, len(names), *names)], reads=True))]
        found: list[Stored | None] = []
        try:
            for reply in replies:
                values, listed = map(_checked, _checked(reply))
                moments = dict(zip(listed[::2], listed[1::2], strict=True))
                found += [_found(value, moments.get(at + 1), now) for at, value in enumerate(values)]
        except LimitError:  # of an answer's size, where the server has one
            if len(names) == 1:
                raise
            half = len(names) // 2
            return (yield from self._read(names[:half], now)) + (yield from self._read(names[half:], now))
        return found

    def put(self, records: Sequence[Record]) -> Plan[None]:
        """See ``Backend.put_many``."""
        writing = _Writing("stored", [record.key for record in records])
        for group in self._sized(records):
            lasting = [record for record in group if record.expires_at_ms is None]
            parts = list(self._grouped(lasting))
            commands: list[tuple[Any, ...]] = [
                ("MSET", *(each for record in part for each in (self._key(record.key), _payload(record))))
                for part in parts
            ]
            for record in group:
                if record.expires_at_ms is not None:
                    commands.append(("SET", self._key(record.key), _payload(record), "PXAT", record.expires_at_ms))
                    parts.append([record])
            writing.note([[record.key for record in part] for part in parts], (yield Batch(commands)))
            if writing.is_cut_off:
                break
        writing.end()

    def delete(self, keys: Sequence[str]) -> Plan[None]:
        """See ``Backend.delete_many``."""
        writing = _Writing("removed", keys)
        for start in range(0, len(keys), _KEYS_MAX):
            groups = list(self._groups(keys[start : start + _KEYS_MAX]))
            writing.note(groups, (yield Batch([("UNLINK", *map(self._key, group)) for group in groups])))
            if writing.is_cut_off:
                break
        writing.end()

    def add(self, records: Sequence[Record]) -> Plan[list[bool]]:
        """See ``Backend.add_many``."""
        writing = _Writing("added", [record.key for record in records], is_repeatable=False)
        added: dict[str, bool] = {}
        now = now_ms()
        for sized in self._sized(records):
            groups = list(self._grouped(sized))
            commands = [
                (
                    *("EVAL", _ADD, len(group), *(self._key(record.key) for record in group), now),
                    *(each for record in group for each in (_moment(record), _payload(record))),
                )
                for group in groups
            ]
            replies = yield Batch(commands, is_repeatable=False)
            writing.note([[record.key for record in group] for group in groups], replies)
            for group, reply in zip(groups, replies, strict=True):
                if not isinstance(reply, Exception):
                    added.update((record.key, bool(one)) for record, one in zip(group, reply, strict=True))
            if writing.is_cut_off:
                break
        writing.end({key for key, is_new in added.items() if is_new})
        return [added[record.key] for record in records]

    def update(self, key: str, change: Change) -> Plan[None]:
        """See ``Backend.update``."""
        name = self._key(key)
        while True:
            (reply,) = yield Batch([("EVAL", _READ, 1, name)], reads=True)
            (value,), moments = _checked(reply)
            record = change(_found(value, moments[1] if moments else None, now_ms()))
            new: tuple[Any, ...] = ("remove", 0)
            both = value or b""
            if record is not None:
                check_size(record)
                new = ("keep", _moment(record))
                both += _payload(record)
            was = (-1 if value is None else len(value), moments[1] if moments else -1)
            command = ("EVAL", _REPLACE, 1, name, was[0], *new, was[1], both)
            (reply,) = yield Batch([command], is_repeatable=False)
            if _checked(reply):
                return

    def touch(self, keys: Sequence[str], expires_at_ms: int) -> Plan[None]:
        """See ``Backend.touch_many``."""
        for start in range(0, len(keys), _KEYS_MAX):
            groups = self._groups([self._key(key) for key in keys[start : start + _KEYS_MAX]])
            for reply in (yield Batch([("EVAL", _TOUCH, len(group), *group, expires_at_ms) for group in groups])):
                _checked(reply)

    def listed(self, prefix: str, cursor: bytes, *, values: bool, expired: bool = False) -> Plan[Listed]:
        """Return a step of a listing: the keys that begin with ``prefix`` and have expired, or not.

        Keys that are no text, which no store of this package writes, are left out.
        """
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._key(prefix)) + b"*"
        asked = "expired" if expired else "alive"
        command = ("EVAL", _SCAN, 0, cursor, pattern, _KEYS_MAX, now_ms(), asked, int(values))
        (reply,) = yield Batch([command], reads=True)
        then, names, sizes = _checked(reply)
        groups: list[list[str]] = [[]]
        size_bytes = 0
        for name, size in zip(names, sizes or [0] * len(names), strict=True):
            size_bytes += size
            if groups[-1] and size_bytes > self._bytes_max:
                groups.append([])
                size_bytes = size
            try:
                groups[-1].append(name[len(self._prefix) :].decode())
            except UnicodeDecodeError:
                continue
        return Listed(then, groups)

    def _key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def _groups(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        for start in range(0, len(items), self._keys_max):
            yield items[start : start + self._keys_max]

    def _grouped(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        alone = [] if self._takes_bytes else [record for record in records if not _is_text(record)]
        keys = {record.key for record in alone}
        yield from self._groups([record for record in records if record.key not in keys] if keys else records)
        yield from ([record] for record in alone)

    def _sized(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """Yield the records in parts of few bytes; raise InvalidValueError before the first where one is too large."""
        sizes = [len(record.payload) for record in records]
        if len(sizes) <= _KEYS_MAX and sum(sizes) <= self._bytes_max:
            yield list(records)
            return
        for record in records:
            check_size(record)
        part: list[Record] = []
        size_bytes = 0
        for record in records:
            size_bytes += len(record.payload)
            if part and (size_bytes > self._bytes_max or len(part) == _KEYS_MAX):
                yield part
                part, size_bytes = [], len(record.payload)
            part.append(record)
        if part:
            yield part


class _Writing:
    """What became of each key of a batch of writes."""

    def __init__(self, done: str, keys: Sequence[str], *, is_repeatable: bool = True) -> None:
        self.is_cut_off = False
        self._done = done
        self._keys = keys
        self._is_repeatable = is_repeatable
        self._answered: set[str] = set()
        self._errors: dict[str, StoreError] = {}

    def note(self, groups: Sequence[Sequence[str]], replies: Sequence[Any]) -> None:
        """Note the reply to each group of keys."""
        for group, reply in zip(groups, replies, strict=True):
            if isinstance(reply, StoreError):
                if isinstance(reply, LimitError) and len(group) == 1:
                    reply.args = (f"Key {shown(group[0])}: {reply}",)
                self._errors.update(dict.fromkeys(group, reply))
                self.is_cut_off = self.is_cut_off or isinstance(reply, TransportError | AuthError)
            else:
                self._answered.update(group)

    def end(self, written: set[str] | None = None) -> None:
        """Raise what there is to tell.

        Args:
            written: those of the keys that were answered that are stored; None for all of them.
        """
        if not self._errors:
            return
        first = next(iter(self._errors.values()))
        unknown = tuple(key for key in self._keys if key in self._errors and self._errors[key].applied is None)
        refused = [key for key in self._keys if key not in self._answered and key not in unknown]
        if not self._answered and (not unknown or len(self._keys) == 1):
            raise first
        raise PartialWriteError.of(
            self._done,
            written=tuple(key for key in self._keys if key in (self._answered if written is None else written)),
            unwritten=tuple(refused),
            unknown=unknown,
            errors={key: self._errors.get(key, first) for key in (*refused, *unknown)},
            shown=shown,
            is_repeatable=self._is_repeatable,
        )


def _checked(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def check_size(record: Record) -> None:
    """Refuse a value that is larger than Redis takes."""
    if len(record.payload) + len(_JSON) > VALUE_MAX_BYTES:
        raise InvalidValueError(
            f"The value of key {shown(record.key)} takes {len(record.payload):,} bytes, and Redis keeps at most"
            f" {VALUE_MAX_BYTES:,} with what marks JSON: divide it."
        )


def _moment(record: Record) -> int:
    return 0 if record.expires_at_ms is None else max(1, record.expires_at_ms)


def _is_text(record: Record) -> bool:
    if record.kind is not Kind.BYTES:
        return True
    try:
        record.payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _payload(record: Record) -> bytes:
    if record.kind is not Kind.BYTES:
        return (_ANSWER if record.kind is Kind.BODY_BLOB else _JSON) + record.payload
    payload = record.payload
    return _ESCAPE + payload if payload.startswith(_MARKS) else payload


def _found(value: bytes | None, moment: int | None, now: int) -> Stored | None:
    """Return what is stored; None where it has expired or is not there, or is no value (a list of another program)."""
    if value is None or (moment is not None and moment <= now):
        return None
    if not value.startswith((_JSON, _ANSWER)):
        return Found(value[len(_ESCAPE) :] if value.startswith(_ESCAPE) else value, Kind.BYTES, moment)
    try:
        kind = Kind.BODY_BLOB if value.startswith(_ANSWER) else Kind.JSON
        return Found(parse_json(value[len(_JSON) :]), kind, moment)
    except ValueError:
        return Damaged("its text is not JSON")

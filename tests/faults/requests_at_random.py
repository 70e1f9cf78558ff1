"""HTTP requests at random: commands with any value at any field, broken JSON, extremes, and broken HTTP."""

# ruff: noqa: E501, RUF024 - tables of what is sent, of which nothing is changed

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from langchain_kv.limits import BODY_MAX_BYTES
from langchain_kv.server.commands.table import COMMANDS

__all__ = ["Case", "cases"]


class Case(NamedTuple):
    """One request.

    Attributes:
        kind: what was wrong with it on purpose.
        data: the bytes that are sent.
        method: its method, by which the answer is read.
        is_http: whether it is HTTP without a fault, so that an answer has to come.
        is_health: whether a GET of its path is answered without an envelope.
        ends: whether the client sends nothing more afterwards, and says so.
    """

    kind: str
    data: bytes
    method: str = "POST"
    is_http: bool = True
    is_health: bool = False
    ends: bool = False


class Text(str):
    """JSON text that is sent as it is."""


class Pairs(list[tuple[str, Any]]):
    """An object whose names may repeat."""


def write(value: Any) -> str:
    if isinstance(value, Text):
        return value
    if isinstance(value, dict):
        value = Pairs(value.items())
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{write(below)}" for name, below in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value)


NAMES = [
    "a", "b", "c", "a.b", "a.0", "a.0.b", "_id", "tags", "tags.0", "value", "", ".", "a..b", "a.", "&", "a&.b", "a&&", "$", "$set",
    "$vector", "$vectorize", "$lexical", "$similarity", "$hybrid", "*", "0", "\u0661", "\ud800", "\0", "\U0001f600", "x" * 1001,
    "a." + "9" * 5000, "a." * 300 + "a", "__proto__", "$date", "$uuid", "id", "A", "a b", "'; DROP TABLE kv; --", "%s{0}",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-1", "1", "2", "3", "20", "21", "50", "51", "1000", "10001", "2147483647", "2147483648", "-2147483649",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" + "0" * 99, "0.1", "1.0", "-0.0", "1e2", "1E-2", "1e400",
    "-1e400", "1e-400", "1e99999", "1e2147483647", "-1e2147483647", "1e-2147483646", "3." + "1" * 99, "1.5e3",
]  # fmt: skip
BAD_NUMBERS = [
    "1" + "0" * 100, "9" * 5000, "1e2147483648", "1e-2147483648", "1e999999999999999999", "0e999999999999999999", "0." + "0" * 200 + "1",
    "01", "+1", ".5", "1.", "NaN", "-Infinity", "0x10", "1_000",
]  # fmt: skip
TEXTS = ["", "a", "b", "text", "true", "1", "\ud800", "\udc00\ud800", "\0", "\U0001f600" * 5, "x" * 7999, "x" * 8001, "\u00e9" * 4001,
         "2020-01-01", "ODo", "MTpz", "MTpzYQ", "OTk6YgIx", "=", "before", "after", "default_keyspace", "plain", "../..", "objectId"]  # fmt: skip
OPERATORS = ["$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists", "$all", "$size", "$not", "$and", "$or", "$nor", "$regex",
             "$elemMatch", "$type", "$"]  # fmt: skip
UPDATES = ["$set", "$setOnInsert", "$unset", "$inc", "$mul", "$min", "$max", "$rename", "$currentDate", "$push", "$pop", "$addToSet", "$pull",
           "$bit", "a"]  # fmt: skip
OPTIONS = {
    "find": ["limit", "skip", "pageState", "pagingState", "includeSimilarity", "includeSortVector"],
    "findOne": ["includeSimilarity", "includeSortVector"],
    "insertMany": ["ordered", "returnDocumentResponses"],
    "findOneAndReplace": ["upsert", "returnDocument"],
    "findOneAndUpdate": ["upsert", "returnDocument"],
    "updateOne": ["upsert"],
    "updateMany": ["upsert", "pageState"],
    "createCollection": ["indexing", "defaultId", "vector", "lexical", "rerank"],
    "createKeyspace": ["replication"],
    "findCollections": ["explain"],
}
PATHS = ["/v1", "/v1/", "/v1/default_keyspace", "/v1/default_keyspace/plain", "/v1/default_keyspace/plain/", "/v1/default_keyspace/plain/x",
         "/v1//plain", "/v1/%00/plain", "/v1/%ff/%fe", "/v1/" + "k" * 5000, "/v1/default_keyspace/%F0%9F%98%80", "/v1/a%2Fb/c", "/v2", "/", "*",
         "/v1/../v1/x", "/v1?x=" + "y" * 3000, "/v1/default_keyspace/plain?a=b&a=c", "/v1/default_keyspace/plain#f", "//", "/v1/;/'", "/stargate/health",
         "/stargate/health/ready", "/stargate/health/x", "http://other.example/v1", "/v1/%", "/v1/%zz/plain", "/metrics"]  # fmt: skip
METHODS = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "POST"]


class Maker:
    """Makes values and requests out of one source of chance."""

    def __init__(self, chance: Random, token: str) -> None:
        self.r = chance
        self.token = token

    def number(self) -> Text:
        return Text(self.r.choice(BAD_NUMBERS if self.r.random() < 0.01 else NUMBERS))

    # -- values -----------------------------------------------------------------------------------------------------

    def value(self, depth: int = 3) -> Any:
        kinds: list[Callable[[], Any]] = [
            lambda: self.r.choice([None, True, False]),
            self.number,
            lambda: self.r.randrange(-10, 110),
            lambda: self.r.choice(TEXTS),
            self.extended,
        ]
        if depth:
            kinds += [lambda: [self.value(depth - 1) for _ in range(self.r.randrange(4))], lambda: self.object(depth)]
        return self.r.choice(kinds)()

    def object(self, depth: int = 3) -> Any:
        pairs = [(self.r.choice(NAMES), self.value(depth - 1)) for _ in range(self.r.randrange(4))]
        return Pairs(pairs) if self.r.random() < 0.1 else dict(pairs)

    def extended(self) -> Any:
        kind = self.r.choice(["$date", "$uuid", "$objectId", "$binary"])
        good = {"$date": 1, "$uuid": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "$objectId": "0" * 24, "$binary": "YQ=="}
        return {kind: self.r.choice([good[kind], self.value(0), self.number(), "\ud800"])}

    def document(self) -> Any:
        if self.r.random() < 0.1:
            return self.value()
        document = dict(self.object(4))
        if self.r.random() < 0.7:
            document = {"_id": self.r.choice([self.r.choice(TEXTS), self.r.randrange(50), self.value(1)]), **document}
        return document

    def filter(self, depth: int = 2) -> Any:
        if self.r.random() < 0.1:
            return self.value()
        parts: dict[str, Any] = {}
        for _ in range(self.r.choice([0, 1, 1, 2, 3])):
            if depth and self.r.random() < 0.3:
                below = [self.filter(depth - 1) for _ in range(self.r.randrange(3))]
                parts[self.r.choice(["$and", "$or", "$not"])] = self.r.choice([below, self.filter(depth - 1)])
            elif self.r.random() < 0.3:
                parts[self.r.choice(NAMES)] = self.value(2)
            else:
                operand = self.r.choice([self.value(2), [self.value(1) for _ in range(self.r.choice([0, 1, 3, 101]))]])
                parts[self.r.choice(NAMES)] = {self.r.choice(OPERATORS): operand}
        return parts

    def projection(self) -> Any:
        wanted = [True, False, 0, 1, {"$slice": 1}, {"$slice": [-1, 2]}, {"$slice": self.value(1)}, {"b": True}]
        return self.r.choice(
            [self.value(2), {self.r.choice(NAMES): self.r.choice([*wanted, self.value(2)]) for _ in range(self.r.randrange(4))}]
        )  # fmt: skip

    def update(self) -> Any:
        if self.r.random() < 0.1:
            return self.value()
        modifiers = {"$each": [self.value(1)], "$position": self.value(0)}
        return {
            self.r.choice(UPDATES): self.r.choice(
                [self.object(2), {self.r.choice(NAMES): self.r.choice([self.value(2), modifiers, 1, self.r.choice(NAMES)])}]
            )
            for _ in range(self.r.choice([1, 1, 2]))
        }  # fmt: skip

    def options(self, command: str) -> Any:
        if self.r.random() < 0.05:
            return self.value()
        known = OPTIONS.get(command, ["unknown"] if self.r.random() < 0.05 else [])
        paths = [self.r.choice(NAMES) for _ in range(self.r.randrange(3))]
        values = [True, 1, "after", "before", {"allow": paths}, {"deny": paths}, {"type": "uuid"}, {"enabled": False}]
        return {name: self.r.choice([*values, self.value(2)]) for name in known if self.r.random() < 0.4}

    def field(self, command: str, name: str) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "document": self.document,
            "replacement": self.document,
            "documents": lambda: [self.document() for _ in range(self.r.choice([0, 1, 1, 2, 3, 20, 101]))],
            "filter": self.filter,
            "projection": self.projection,
            "sort": lambda: {self.r.choice(NAMES): self.r.choice([1, -1, self.value(1)]) for _ in range(self.r.randrange(3))},
            "update": self.update,
            "options": lambda: self.options(command),
            "name": lambda: self.r.choice(["plain", "some", "new", "newer", self.r.choice(TEXTS)]),
        }  # fmt: skip
        return self.value() if self.r.random() < 0.05 else makers.get(name, self.value)()

    def command(self) -> tuple[str, Any]:
        """Return the path of a URL, and a command for it that is wrong in few places, if any."""
        level = self.r.choices([0, 1, 2], [1, 2, 8])[0]
        table = COMMANDS[level]
        name = self.r.choice(list(table))
        fields: Any = {field: self.field(name, field) for field in table[name].fields if self.r.random() < 0.7}
        if self.r.random() < 0.05:
            fields[self.r.choice(NAMES)] = self.value()
        if self.r.random() < 0.03:
            fields = self.value()
        if name in ("dropKeyspace", "dropNamespace") and isinstance(fields, dict):
            fields["name"] = "other"  # what other requests need stays
        if name == "deleteCollection" and isinstance(fields, dict) and self.r.random() < 0.8:
            fields["name"] = "new"
        path = [
            "/v1",
            "/v1/default_keyspace",
            "/v1/default_keyspace/" + self.r.choice(["plain", "ids", "some", "uuids"]),
        ]
        return path[level], {name: fields} if self.r.random() < 0.98 else self.value()

    # -- requests ---------------------------------------------------------------------------------------------------

    def head(self, path: str, length: int | None, method: str = "POST", *more: str, token: str | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Token: {self.token if token is None else token}", *more]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def post(self, kind: str, body: bytes, path: str = "/v1/default_keyspace/plain") -> Case:
        return Case(kind, self.head(path, len(body)) + body)

    def plain_command(self) -> Case:
        path, command = self.command()
        return self.post("command", write(command).encode("utf-8", "surrogatepass"), path)

    def changed_bytes(self) -> Case:
        path, command = self.command()
        body = bytearray(write(command).encode("utf-8", "surrogatepass"))
        for _ in range(self.r.randrange(1, 4)):
            at = self.r.randrange(len(body) + 1)
            new = self.r.choice(
                [
                    b"",
                    b'"',
                    b"{",
                    b"]",
                    b"\xff",
                    b"\x00",
                    b"\xed\xa0\x80",
                    b"\\u",
                    b",",
                    b"\xef\xbb\xbf",
                    bytes([self.r.randrange(256)]),
                ]
            )
            body[at : at + self.r.choice([0, 1, 1, 5])] = new  # fmt: skip
        return self.post("changed bytes", bytes(body[: self.r.choice([len(body), self.r.randrange(len(body) + 1)])]), path)  # fmt: skip

    def noise(self) -> Case:
        return self.post("noise", self.r.randbytes(self.r.choice([0, 1, 10, 1000, 100_000])))

    def deep(self) -> Case:
        levels = self.r.choice([16, 17, 99, 100, 101, 500, 990, 999, 1000, 1001, 5000, 100_000])
        opening, closing = self.r.choice(
            [("[", "]"), ('{"a":', "}"), ('{"$not":', "}"), ('{"$and":[', "]}"), ('{"_id":', "}")]
        )
        deep = Text(opening * levels + self.r.choice(["1", ""]) + closing * self.r.choice([levels, 0]))
        where = self.r.choice(["filter", "projection", "sort", "options", "document", "replacement", "update"])
        names = [name for name, command in COMMANDS[2].items() if where in command.fields]
        command = (
            Text(deep)
            if self.r.random() < 0.1
            else {self.r.choice(names): {where: self.r.choice([deep, {"a": deep}, {"_id": deep}])}}
        )
        return self.post("deep", write(command).encode())  # fmt: skip

    def wide(self) -> Case:
        count = self.r.choice([65, 101, 1001, 2001, 10_000])
        names = [f"n{n}" for n in range(count)]
        command = self.r.choice(
            [
                {"find": {"filter": dict.fromkeys(names, 1)}},
                {"find": {"filter": {"$and": [{name: {"$gt": 1}} for name in names]}}},
                {"find": {"filter": {"$or": [{"$not": {name: 1}} for name in names]}}},
                {"find": {"filter": {"a": {"$all": list(range(count))}}}},
                {"find": {"filter": {"a": {"$in": names}}}},
                {"find": {"filter": {"a": Pairs([(operator, 1) for operator in OPERATORS] * (count // 20))}}},
                {"find": {"projection": dict.fromkeys(names, True)}},
                {"find": {"sort": dict.fromkeys(names, 1)}},
                {"find": dict.fromkeys(names, 1)},
                dict.fromkeys(names, {}),
                {"insertOne": {"document": dict.fromkeys(names, 1)}},
                {"insertOne": {"document": Pairs([(name, 1) for name in [*names, "n0"]])}},
                {"insertOne": {"document": {"a": names}}},
                {"updateOne": {"filter": {"_id": "a"}, "update": {"$set": dict.fromkeys(names, 1)}}},
                {"updateOne": {"filter": {"_id": "a"}, "update": dict.fromkeys([f"${name}" for name in names], {})}},
                {"updateOne": {"filter": {"_id": "a"}, "update": {"$push": {"a.b": {"$each": names}}}}},
                {"insertMany": {"documents": [{"_id": name} for name in names]}},
            ]
        )
        return self.post("wide", write(command).encode())

    def path_or_method(self) -> Case:
        path, method = self.r.choice(PATHS), self.r.choice(METHODS)
        body = self.r.choice([b"", b"{}", b'{"findOne":{}}'])
        is_good = "%zz" not in path and path != "*" and not path.endswith("/%") and "#" not in path
        is_health = path in ("/", "/stargate/health", "/stargate/health/ready")
        return Case("path or method", self.head(path, len(body), method) + body, method, is_good, is_health)

    def headers(self) -> Case:
        more = self.r.choice(
            [
                [f"X-{n}: y" for n in range(self.r.choice([100, 3000, 10_000]))],
                ["X-Long: " + "y" * self.r.choice([10_000, 60_000, 1_000_000])],
                ["Content-Type: " + self.r.choice(["text/plain", "", ";", "application/json;", "\xff", "a" * 9000, "multipart/form-data"])],
                ["Token: other", "Token:", "X-Cassandra-Token: other"],
                ["Accept: */*;q=x", "Accept-Encoding: " + "gzip," * 500, "Content-Encoding: gzip"],
                ["Expect: 100-continue"],
                ["Connection: close"],
                ["Cookie: " + "a=b;" * 1000, "Authorization: Bearer x", "X-Forwarded-For: ::1, \xff"],
                ["Upgrade: websocket", "Connection: Upgrade"],
                ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
            ]
        )  # fmt: skip
        token = self.r.choice([None, None, None, "", "wrong", "\xff\xfe", "t" * 5000])
        body = b'{"findOne":{}}'
        data = self.head("/v1/default_keyspace/plain", len(body), "POST", *more, token=token) + body
        return Case("headers", data, is_http=sum(map(len, more)) < 30_000 and "Expect: 100-continue" not in more)

    def broken_http(self) -> Case:
        body = b'{"findOne":{}}'
        path = "/v1/default_keyspace/plain"
        data = self.r.choice(
            [
                self.r.randbytes(self.r.choice([1, 50, 5000])),
                b"\r\n" * self.r.choice([1, 1000]),
                self.head(path, len(body) + 50) + body,
                self.head(path, None, "POST", "Content-Length: -1") + body,
                self.head(path, None, "POST", "Content-Length: 5", "Content-Length: 6") + body,
                self.head(path, None, "POST", "Content-Length: 99999999999999999999999") + body,
                self.head(path, None, "POST", f"Content-Length: {BODY_MAX_BYTES + 1}", "Expect: 100-continue"),
                self.head(path, 5, "POST", "Transfer-Encoding: chunked") + body,
                self.head(path, None, "POST", "Transfer-Encoding: chunked") + b"zz\r\n" + body,
                self.head(path, None, "POST", "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n" + body,
                self.head(path, None, "POST", "Transfer-Encoding: chunked") + b"5\r\n{\"fin",
                self.head(path, None, "POST", "Transfer-Encoding: gzip") + body,
                self.head(path, len(body))[: self.r.randrange(1, 60)],
                self.head(path, len(body)).replace(b"HTTP/1.1", self.r.choice([b"HTTP/9.9", b"HTTP/1.0", b"", b"HTTP/2"])) + body,
                self.head(path, len(body), "POST", "No colon here") + body,
                self.head(path, len(body), "POST", "Name with\0NUL: \0") + body,
                self.head(path, len(body)).replace(b"\r\n", b"\n") + body,
                self.head("/v1/\xe9\xff", len(body)) + body,
                self.head(path, len(body), "P\0ST") + body,
                self.head(path, len(body), "PRI") + body,
                b"GET /v1" + b"x" * self.r.choice([100_000, 1_000_000]),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self.r.randbytes(500),
                self.head(path, len(body)) + body + self.r.randbytes(200),
            ]
        )  # fmt: skip
        return Case("broken HTTP", data, is_http=False, ends=True)

    def too_large(self) -> Case:
        body = b'{"findOne":{}}'.ljust(BODY_MAX_BYTES + self.r.choice([1, 1000]))
        return self.post("too large", body)


def cases(chance: Random, token: str) -> Iterator[Case]:
    """Yield requests without an end, the same ones for the same ``chance``."""
    maker = Maker(chance, token)
    kinds: list[tuple[Callable[[], Case], float]] = [
        (maker.plain_command, 60),
        (maker.changed_bytes, 15),
        (maker.noise, 2),
        (maker.deep, 6),
        (maker.wide, 3),
        (maker.path_or_method, 5),
        (maker.headers, 4),
        (maker.broken_http, 5),
        (maker.too_large, 0.05),
    ]
    makers, weights = zip(*kinds, strict=True)
    while True:
        yield chance.choices(makers, weights)[0]()

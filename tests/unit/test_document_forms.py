"""Documents as JSON and back: what metadata may hold, what is refused, and what other writers left."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import uuid
import zoneinfo
from collections import OrderedDict, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from langchain_classic.storage import InMemoryByteStore, create_kv_docstore
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage

from langchain_kv import DamagedValueError, DocumentStore, InvalidValueError, InvalidValueTypeError, KVStore, limits
from langchain_kv.runtime.slices import whole
from langchain_kv.stores import coding
from langchain_kv.stores.coding import encode_pairs
from langchain_kv.values import codecs

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
OFFSET = dt.timezone(dt.timedelta(hours=-5, minutes=-30), "there")
Pair = namedtuple("Pair", "left right")

KEPT: list[Any] = [
    dt.datetime(2026, 1, 2, 3, 4, 5, 678901),
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2026, 7, 2, 12, tzinfo=BERLIN),
    dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=OFFSET),
    dt.date(2026, 1, 2),
    uuid.UUID(int=2**128 - 1),
    Decimal("-1.50E+400"),
    Decimal("0.10"),
    b"",
    bytes(range(256)),
    (),
    (1, (2.5, [None, ("x",)])),
    set(),
    {1, "1", None, b"1", (dt.date(2026, 1, 2), 1)},
    {dt.datetime(2026, 1, 2), uuid.UUID(int=1), Decimal(1)},
]

PLAIN: list[Any] = [
    {},
    [],
    "2026-01-02",
    {"$date": "x"},
    {"lc": 1, "type": "constructor", "id": ["x"]},
    2**70,
    "\ud800",
]


def type_of(value: object) -> str:
    """Return the type's name, as the repr of a set is another in each process."""
    return type(value).__name__


@pytest.fixture
def store(request: pytest.FixtureRequest) -> DocumentStore:
    return DocumentStore("documents", f"memory:{request.node.name}")


def kept(store: DocumentStore, metadata: dict[Any, Any]) -> dict[str, Any]:
    store.mset([("k", Document("text", metadata=metadata))])
    (found,) = store.mget(["k"])
    assert found is not None
    return found.metadata


def raw(store: DocumentStore) -> Any:
    """Return the value of the key k as JSON, as another program sees it."""
    return KVStore("documents", store._place.shown).mget(["k"])[0]


def same(left: Any, right: Any) -> bool:
    """Compare as ``==`` does, and the types, too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("value", [*KEPT, *PLAIN], ids=type_of)
def test_metadata_come_back_as_they_were(store: DocumentStore, value: Any) -> None:
    metadata = {"m": value, "in": {"a/b": [value, {"~": value}]}, "": 1}

    assert same(kept(store, metadata), metadata)


def test_random_metadata_come_back_as_they_were(store: DocumentStore) -> None:
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    names = ["a", "a/b", "~", "~1", "0", "$x", "types", "metadata", ""]

    def made(depth: int) -> Any:
        form = choose.randrange(4 if depth else 1)
        if form == 0:
            return choose.choice([*KEPT, *PLAIN, 1, None, True, 1.5])
        items = [made(depth - 1) for _ in range(choose.randrange(4))]
        return [items, tuple(items), dict(zip(names, items, strict=False))][form - 1]

    for _ in range(200):
        metadata = {name: made(4) for name in choose.sample(names, 3)}
        assert same(kept(store, metadata), metadata), seed


def test_a_document_is_readable_json_with_its_types_beside_it(store: DocumentStore) -> None:
    kept(store, {"when": dt.date(2026, 1, 2), "where/~": [{"id": uuid.UUID(int=1)}], "n": 1})

    assert raw(store) == {
        "page_content": "text",
        "metadata": {"when": "2026-01-02", "where/~": [{"id": "00000000-0000-0000-0000-000000000001"}], "n": 1},
        "id": None,
        "types": {"/metadata/when": "date", "/metadata/where~1~0/0/id": "UUID"},
    }


def test_without_such_metadata_nothing_stands_beside_it(store: DocumentStore) -> None:
    store.mset([("k", Document("text", metadata={"a": [1, {"b": None}]}, id="1"))])

    assert raw(store) == {"page_content": "text", "metadata": {"a": [1, {"b": None}]}, "id": "1"}


def test_equal_sets_are_kept_alike(store: DocumentStore) -> None:
    names = [f"name {number}" for number in range(20)]
    kept(store, {"s": set(names)})
    first = raw(store)
    kept(store, {"s": {*names[10:], *names[:10]}})

    assert raw(store) == first


def test_a_zone_becomes_its_offset(store: DocumentStore) -> None:
    when = kept(store, {"t": dt.datetime(2026, 7, 2, 12, tzinfo=BERLIN)})["t"]

    assert when.isoformat() == "2026-07-02T12:00:00+02:00"
    assert when.tzinfo == dt.timezone(dt.timedelta(hours=2))


def test_what_is_given_is_not_changed(store: DocumentStore) -> None:
    inner = [(1,), {dt.date(2026, 1, 2)}]
    metadata = {"m": inner}
    kept(store, metadata)

    assert metadata == {"m": [(1,), {dt.date(2026, 1, 2)}]}
    assert metadata["m"] is inner


def test_subclasses_of_what_is_kept_become_it(store: DocumentStore) -> None:
    found = kept(store, {"o": OrderedDict(a=Pair(1, dt.date(2026, 1, 2))), "t": type("Text", (str,), {})("x")})

    assert same(found, {"o": {"a": (1, dt.date(2026, 1, 2))}, "t": "x"})


# -- what is refused --------------------------------------------------------------------------------------------------


class Own(Document):
    pass


class Scored(Document):
    score: float = 0.0


LOOP: list[Any] = []
LOOP.append((LOOP,))

DEEP: tuple[Any, ...] = ()
for _ in range(5_000):
    DEEP = (DEEP,)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (frozenset({1}), r"\['metadata'\]\['m'\]\[0\] an object of type frozenset"),
        (dt.timedelta(1), r"\['metadata'\]\['m'\]\[0\] an object of type datetime.timedelta"),
        (dt.time(1), r"\['metadata'\]\['m'\]\[0\] an object of type datetime.time"),
        (bytearray(b"x"), r"\['metadata'\]\['m'\]\[0\] an object of type bytearray"),
        (type("Stamp", (dt.datetime,), {})(2026, 1, 2), r"\['metadata'\]\['m'\]\[0\] an object of type .*Stamp"),
        (Document("x"), r"\['metadata'\]\['m'\]\[0\] an object of type langchain_core.documents.base.Document"),
        ((1, {frozenset()}), r"\['metadata'\]\['m'\]\[0\]\[1\]\[0\] an object of type frozenset"),
        ({1: 2}, r"\['metadata'\]\['m'\]\[0\] an object with a field name of type int"),
        (float("nan"), r"holds nan at \['metadata'\]\['m'\]\[0\]"),
        ((dt.date(2026, 1, 2), float("inf")), r"holds inf at \['metadata'\]\['m'\]\[0\]\[1\]"),
        (LOOP, "nested more than 200 levels deep"),
        (DEEP, "nested more than 200 levels deep"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_metadata_are_refused_by_key_and_place(store: DocumentStore, value: Any, told: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"key 'bad'.*{told}"):
        store.mset([("good", Document("x")), ("bad", Document("x", metadata={"m": [value]}))])

    assert store.mget(["good"]) == [None]


@pytest.mark.parametrize("value", [None, {"page_content": "x"}, "x", b"x", HumanMessage("x")], ids=repr)
def test_only_documents_are_kept(store: DocumentStore, value: Any) -> None:
    with pytest.raises(InvalidValueTypeError, match=r"key 'bad': A DocumentStore keeps Documents, got .*: keep JSON"):
        store.mset([("bad", value)])


def test_a_subclass_comes_back_as_a_document(store: DocumentStore) -> None:
    store.mset([("k", Own("x", metadata={"a": 1}, id="1"))])
    (found,) = store.mget(["k"])

    assert type(found) is Document
    assert found == Document("x", metadata={"a": 1}, id="1")


def test_a_subclass_with_fields_of_its_own_is_refused(store: DocumentStore) -> None:
    with pytest.raises(InvalidValueTypeError, match=r"key 'k' is a .*Scored with fields that .* \(score\): put them"):
        store.mset([("k", Scored("x", score=0.5))])
    store.mset([("k", Document("x", metadata={"score": 0.5}))])


@pytest.mark.parametrize(("field", "value"), [("page_content", 1), ("metadata", []), ("id", 7)])
def test_a_field_that_was_made_another_type_is_refused(store: DocumentStore, field: str, value: Any) -> None:
    document = Document("x")
    setattr(document, field, value)

    with pytest.raises(InvalidValueTypeError, match=rf"key 'k' holds at \['{field}'\] an object of type"):
        store.mset([("k", document)])


# -- stored values that are none --------------------------------------------------------------------------------------


def plant(store: DocumentStore, value: Any) -> None:
    KVStore("documents", store._place.shown).mset([("k", value)])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1], "it is no document but list"),
        (7, "it is no document but int"),
        ("plain text", "it is text and no document"),
        ({"content": "x"}, "it has no page_content"),
        ({"page_content": 1}, "its page_content, metadata or id is of another type"),
        ({"page_content": "x", "metadata": None}, "its page_content, metadata or id is of another type"),
        ({"page_content": "x", "id": 1}, "its page_content, metadata or id is of another type"),
        ({"page_content": "x", "types": ["/metadata/a"]}, "its types are no object"),
        (("date", "complex"), "'/metadata/a' in it has the type 'complex', which this version does not know"),
        (("date", 7), "'/metadata/a' in it has the type 7, which this version does not know"),
        (("date", "date"), "'/metadata/a' in it is no date"),
        (("1", "UUID"), "'/metadata/a' in it is no UUID"),
        (("x", "Decimal"), "'/metadata/a' in it is no Decimal"),
        ((1, "Decimal"), "'/metadata/a' in it is no Decimal"),
        (("?", "bytes"), "'/metadata/a' in it is no bytes"),
        (("abc", "tuple"), "'/metadata/a' in it is no tuple"),
        (([[1]], "set"), "'/metadata/a' in it is no set"),
        ({"page_content": "x", "metadata": {}, "types": {"/metadata/b": "date"}}, "'/metadata/b' in it is no date"),
        ({"page_content": "x", "metadata": {}, "types": {"/page_content": "bytes"}}, "'/page_content' in it is no b"),
        ({"page_content": "x", "metadata": {}, "types": {"/metadata": "set"}}, "'/metadata' in it is no set"),
        ({"page_content": "x", "metadata": {}, "types": {"x/metadata/a": "set"}}, "'x/metadata/a' in it is no set"),
        ({"page_content": "x", "metadata": {"a": [1]}, "types": {"/metadata/a/x": "set"}}, "'/metadata/a/x' in it is"),
    ],
)
def test_what_is_no_document_is_damaged_and_the_others_are_read(store: DocumentStore, value: Any, told: str) -> None:
    if isinstance(value, tuple):
        value = {"page_content": "x", "metadata": {"a": value[0]}, "types": {"/metadata/a": value[1]}}
    plant(store, value)
    store.mset([("good", Document("x"))])

    with pytest.raises(DamagedValueError) as caught:
        store.mget(["good", "k"])

    assert told in caught.value.errors["k"]
    assert caught.value.values == {"good": Document("x")}


def test_null_reads_as_missing(store: DocumentStore) -> None:
    plant(store, None)

    assert store.mget(["k"]) == [None]


def test_what_langchain_communitys_mongodb_store_wrote_is_read(store: DocumentStore) -> None:
    plant(store, {"id": "1", "metadata": {"a": [1]}, "page_content": "x", "type": "Document"})

    assert store.mget(["k"]) == [Document("x", metadata={"a": [1]}, id="1")]


# -- what create_kv_docstore wrote ------------------------------------------------------------------------------------


def classic(document: Document) -> bytes:
    """Return what LangChain's own docstore writes of a document."""
    below = InMemoryByteStore()
    create_kv_docstore(below).mset([("k", document)])
    (written,) = below.mget(["k"])
    assert written is not None
    return written


def read(document: Document, store: DocumentStore) -> Document:
    found = store.decode_value(classic(document))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": [1, 2.5, None, True, {"b": "c"}]},
        {"n": 2**70, "text": "\ud800"},
        {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "document", "Document"], "kwargs": {}},
        {"m": {"lc": 1, "type": "not_implemented", "id": ["a"], "repr": "set()"}},
        {"m": {"__lc_escaped__": {"lc": 2}}},
    ],
    ids=repr,
)
def test_what_create_kv_docstore_reads_is_read_alike(store: DocumentStore, metadata: dict[str, Any]) -> None:
    document = Document("text \u2603", metadata=metadata, id="1")
    below = InMemoryByteStore()
    theirs = create_kv_docstore(below)
    theirs.mset([("k", document)])

    assert [read(document, store)] == theirs.mget(["k"]) == [document]


RESCUED: list[Any] = [
    *(value for value in KEPT if not isinstance(value, tuple)),
    dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=1, seconds=1))),
    Decimal("-Infinity"),
    b'it\'s "quoted" \\ ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((',
    {-1, -2.5, 1e300, True, "}", "a, b"},
]


@pytest.mark.parametrize("value", RESCUED, ids=type_of)
def test_what_create_kv_docstore_wrote_and_cannot_read_is_rescued(store: DocumentStore, value: Any) -> None:
    below = InMemoryByteStore()
    theirs = create_kv_docstore(below)
    theirs.mset([("k", Document("text", metadata={"a": [{"m": value}]}))])
    with pytest.raises(NotImplementedError):
        theirs.mget(["k"])
    (written,) = below.mget(["k"])

    found = store.decode_value(written)

    assert found is not None
    assert same(found.metadata, {"a": [{"m": value}]})
    store.mset([("k", found)])
    assert store.mget(["k"]) == [found]


def test_the_second_of_two_equal_hours_is_told_apart(store: DocumentStore) -> None:
    when = dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)
    rescued = read(Document("text", metadata={"m": when}), store).metadata["m"]

    assert (rescued, rescued.fold) == (when, 1)
    assert kept(store, {"m": rescued})["m"].isoformat() == "2026-10-25T02:30:00+01:00"


@pytest.mark.parametrize("zone", ["<UTC>", "tzutc()", "datetime.timezone.utc", "zoneinfo.ZoneInfo(key='UTC')"])
def test_utc_is_known_by_the_names_that_libraries_give_it(store: DocumentStore, zone: str) -> None:
    found = store.decode_value(note(f"datetime.datetime(2026, 1, 2, 3, 4, tzinfo={zone})"))

    assert found is not None
    assert found.metadata["m"] == dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)


def note(text: Any, name: str = "datetime") -> bytes:
    """Return a document with a note in its metadata, of an object that was written by its repr."""
    written = json.loads(classic(Document("x")))
    written["kwargs"]["metadata"] = {"m": {"lc": 1, "type": "not_implemented", "id": ["datetime", name], "repr": text}}
    return json.dumps(written).encode()


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os').getcwd()", "open('/etc/passwd')", "datetime.datetime.now()", "[x for x in (1,)]", "1 + 1"),
        *("datetime.datetime", "datetime.datetime(2026)", "datetime.datetime(*(2026, 1, 1))", "UUID()", "UUID(1)"),
        *("datetime.datetime(**{'year': 2026, 'month': 1, 'day': 1})", "Decimal(('x',))", "Decimal('x')", "set(x)"),
        *("{[1]}", "{1: 2}", "{...}", "{1j}", "", "<object at 0x7f>", "datetime.timedelta(days=1)", "1", "'x'"),
        *("{datetime.datetime}", "b'a' b'b' + b'c'", "frozenset({1})", "\0", None, 7),
        *(f"datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('{zone}'))" for zone in ("No", "../../etc/passwd")),
        *(one * 20_000 for one in ("(", "[", "{", "-", "a.", "1+", "not ", "set(", "{{", "- ", "lambda:", "*")),
        *("9" * 100_000, "Decimal('" + "9" * 5_000 + "'", "{" + "1," * 20_000),
    ],
    ids=lambda text: repr(text)[:40],
)
def test_other_notes_are_damage_and_nothing_is_made_of_them(store: DocumentStore, text: Any) -> None:
    with pytest.raises(
        ValueError, match=r"'/metadata/m' in it is a note of a datetime\.datetime, of which it cannot be"
    ):
        store.decode_value(note(text))


@pytest.mark.parametrize("value", [HumanMessage("x"), Document("x"), [{"deep": HumanMessage("x")}]], ids=repr)
def test_objects_of_langchain_in_metadata_are_damage(store: DocumentStore, value: Any) -> None:
    with pytest.raises(ValueError, match=r"'/metadata/m.* in it is an object of LangChain's own"):
        store.decode_value(dumps(Document("x", metadata={"m": value})).encode())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "no JSON text"),
        (b"\xff", "no JSON text"),
        (b"[" * 100_000, "no JSON text"),
        (b"[]", "no Document"),
        (dumps(HumanMessage("x")).encode(), "no Document"),
        (classic(Document("x")).replace(b'"constructor"', b'"secret"'), "no Document"),
        (classic(Document("x")).replace(b'"lc": 1', b'"lc": 2'), "no Document"),
        (classic(Document("x")).replace(b'"page_content"', b'"content"'), "no page_content"),
    ],
)
def test_bytes_that_are_no_document_are_damage(store: DocumentStore, text: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        store.decode_value(text)


# -- many at once -----------------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


LIMIT = limits.PATH_MAX_UTF16 - len("value.metadata.")

ODD: list[dict[Any, Any]] = [
    *({"a": value} for value in (*KEPT, *PLAIN, math.nan, math.inf, Fraction(1, 2), 10**100, object())),
    *({"a": [1.5, value]} for value in (*KEPT, math.nan, Fraction(1, 2))),
    *({"a": nested(depth)} for depth in range(10, 17)),
    *({name: 1} for name in ("", "$a", "$date", "\ud800", 1, None)),
    *({"x" * (LIMIT + more): 1} for more in range(-2, 3)),
    *({"\U0001f600" * ((LIMIT + more) // 2): 1} for more in range(-2, 3)),
    *({"a": {"x" * (LIMIT - 2 + more): 1}} for more in range(-2, 3)),
]


def check_together(documents: dict[str, Document]) -> None:
    """Encode them each alone and all together: to the same records, or the same refusal."""
    told: list[Any] = []
    with DocumentStore("documents", "memory:together") as store:
        for encoded in (encode_pairs(store.encode_value, documents, None), store._records(documents, None)):
            try:
                told.append(whole(encoded))
            except InvalidValueError as error:
                told.append((type(error), str(error)))
        assert told[0] == told[1]
        if isinstance(told[0], list):
            assert told[0] == [codecs.encode_json(key, store.encode_value(value)) for key, value in documents.items()]


@pytest.mark.parametrize("metadata", ODD, ids=range(len(ODD)))
def test_metadata_are_encoded_together_as_each_alone(metadata: dict[Any, Any]) -> None:
    documents = {key: Document("text", metadata={"n": 1}) for key in "abcde"}
    documents["d"].metadata = metadata
    check_together(documents)


@pytest.mark.parametrize(("field", "value"), [("page_content", 1), ("page_content", "\ud800"), ("id", 1), ("id", "x")])
def test_fields_are_encoded_together_as_each_alone(field: str, value: Any) -> None:
    documents = {key: Document("text") for key in "abcde"}
    setattr(documents["d"], field, value)
    check_together(documents)


def test_usual_documents_are_encoded_without_a_call_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = {f"k{n}": Document("text", metadata={"n": [n, {"x": 1.5}]}) for n in range(250)}
    odd = {**documents, "k120": Document("text", metadata={"when": dt.date(2026, 1, 2)})}
    with DocumentStore("documents", "memory:usual") as store:
        alone = [codecs.encode_json(key, store.encode_value(document)) for key, document in documents.items()]
        calls: list[Any] = []
        encode_value = DocumentStore.encode_value
        usual = coding.usual_of(encode_value)
        assert usual is not None

        @coding.usually(usual)
        def counted(self: Any, value: Any) -> Any:
            calls.append(value)
            return encode_value(self, value)

        monkeypatch.setattr(DocumentStore, "encode_value", counted)
        assert whole(store._records(documents, None)) == alone
        assert not calls
        whole(store._records(odd, None))
        assert len(calls) == coding.RUN


def test_a_subclass_has_its_own_form_in_batches_too() -> None:
    class Marked(DocumentStore):
        def encode_value(self, value: Any) -> Any:
            return {**super().encode_value(value), "mark": 1}

    with Marked("documents", "memory:marked") as store, KVStore("documents", "memory:marked") as raw_values:
        store.mset([("a", Document("x")), ("b", Document("y"))])
        assert [value["mark"] for value in raw_values.mget(["a", "b"])] == [1, 1]

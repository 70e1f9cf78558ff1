"""LangChain's cache of what models answered, over a store, in the form of langchain-astradb's ``AstraDBCache``."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.load import dumps, loads
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from msgspec.structs import replace

from langchain_kv.backends.wrappers import Wrapper
from langchain_kv.errors import DamagedValueError, UsageError
from langchain_kv.places.arguments import Token
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.stores.kept_by import KeptByStore
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values.codecs import UndecodableError
from langchain_kv.values.keys import type_name
from langchain_kv.values.records import Kind, Record

if TYPE_CHECKING:
    from langchain_core.language_models.llms import BaseLLM

    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.base import Place

__all__ = ["KVCache"]

_LOADED: Final = (
    *(Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk),
    *(AIMessage, AIMessageChunk, HumanMessage, HumanMessageChunk, SystemMessage, SystemMessageChunk),
    *(ToolMessage, ToolMessageChunk, ChatMessage, ChatMessageChunk, FunctionMessage, FunctionMessageChunk),
)
"""All that is made of stored text: none of these does anything but keep what it is given."""

_PAGE: Final = 500
"""Answers that are taken over from another cache at a time."""

Row = tuple[str, str, int, str]
"""``(prompt, llm, idx, response)``."""

_logger = logging.getLogger("langchain_kv")


class KVCache(KeptByStore, BaseCache):
    """Keeps what models answered, on any target: ``set_llm_cache(KVCache("llm_cache", "sqlite:kv.db"))``.

    It reads what langchain-astradb's ``AstraDBCache`` wrote to a collection, and is read by it, unless it encrypts. An
    answer that cannot be read, or not be made again of what would be stored, is one more question to the model, and
    one warning in the log ``langchain_kv``. Every method has a twin with a leading ``a``.

    Example:
        >>> from langchain_core.outputs import Generation
        >>> cache = KVCache("llm_cache", "memory:", ttl_s=3600)
        >>> cache.update("What is 1 + 1?", "a model", [Generation(text="2")])
        >>> cache.lookup("What is 1 + 1?", "a model")
        [Generation(text='2')]
    """

    def __init__(
        self,
        collection: str,
        url: str | Place | None = None,
        *,
        token: Token | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        setup_mode: AnySetupMode = SetupMode.SYNC,
        pre_delete_collection: bool = False,
        api_options: object = None,
        request_timeout_s: float | None = None,
        deadline_s: float | None = None,
        wake_timeout_s: float | None = None,
        ttl_s: float | None = None,
        refresh_on_read: bool = False,
        encryption: Encryption | None = None,
        statistics: bool = False,
    ) -> None:
        """Open a cache, on a collection of its own: ``clear`` empties it. All arguments are as ``KVStore`` has them.

        Args:
            collection: the collection's name.
            url: where the answers live; None takes ``LCKV_URL`` of the environment, then ``ASTRA_DB_API_ENDPOINT``.
            token: the Data API's token; None takes ``ASTRA_DB_APPLICATION_TOKEN``.
            keyspace: None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
            environment: which service it is; only Astra DB behind a domain of your own needs it.
            setup_mode: when the collection is made.
            pre_delete_collection: drop the collection before it is made.
            api_options: an astrapy ``APIOptions``.
            request_timeout_s: seconds for one request.
            deadline_s: seconds that an operation goes on trying without any success.
            wake_timeout_s: seconds that a hibernated Astra database is waited for.
            ttl_s: seconds after which an answer expires; None for ever.
            refresh_on_read: whether an answer that is found lives ``ttl_s`` from then on. Not over HTTP.
            encryption: the keys that answers are encrypted with.
            statistics: whether ``statistics`` of the store counts.

        Raises:
            ConfigError: an argument is wrong.
            CollectionConflictError: the collection exists with other settings.
        """
        self._store = _Answers(
            collection,
            url,
            token=token,
            keyspace=keyspace,
            environment=environment,
            setup_mode=setup_mode,
            pre_delete_collection=pre_delete_collection,
            api_options=api_options,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s,
            ttl_s=ttl_s,
            refresh_on_read=refresh_on_read,
            encryption=encryption,
            statistics=statistics,
        )

    def __repr__(self) -> str:
        return f"KVCache over {self._store!r}"

    # -- LangChain's interface --------------------------------------------------------------------------------------

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Return the answer to a prompt, None where there is none.

        Args:
            prompt: the prompt.
            llm_string: which model, with which settings.
        """
        key = _key_of(prompt, llm_string)
        try:
            return self._store.mget([key])[0]
        except DamagedValueError as error:
            _warn_of(error)
            return None

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """As ``lookup``."""
        key = _key_of(prompt, llm_string)
        try:
            return (await self._store.amget([key]))[0]
        except DamagedValueError as error:
            _warn_of(error)
            return None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep the answer to a prompt, in the place of one of before.

        Args:
            prompt: see ``lookup``.
            llm_string: see ``lookup``.
            return_val: the answer.
        """
        answers = _checked(_key_of(prompt, llm_string), return_val)
        if answers:
            self._store.mset(answers)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """As ``update``."""
        answers = _checked(_key_of(prompt, llm_string), return_val)
        if answers:
            await self._store.amset(answers)

    def clear(self, **kwargs: Any) -> None:
        """Remove all answers, of all models. Arguments are ignored."""
        self._store.clear()

    async def aclear(self, **kwargs: Any) -> None:
        """As ``clear``."""
        await self._store.aclear()

    # -- beyond it --------------------------------------------------------------------------------------------------

    def delete(self, prompt: str, llm_string: str) -> None:
        """Remove the answer to a prompt; a missing one is no error."""
        self._store.mdelete([_key_of(prompt, llm_string)])

    async def adelete(self, prompt: str, llm_string: str) -> None:
        """As ``delete``."""
        await self._store.amdelete([_key_of(prompt, llm_string)])

    def delete_through_llm(self, prompt: str, llm: BaseLLM, stop: list[str] | None = None) -> None:
        """Remove the answer that a model gave to a prompt.

        Args:
            prompt: the prompt.
            llm: the model, with its settings.
            stop: as the model was called with.
        """
        self.delete(prompt, _settings_of(llm, stop))

    async def adelete_through_llm(self, prompt: str, llm: BaseLLM, stop: list[str] | None = None) -> None:
        """As ``delete_through_llm``."""
        await self.adelete(prompt, _settings_of(llm, stop))

    def add_rows(self, rows: Iterable[Row]) -> int:
        """Take answers over from the table of LangChain's SQLiteCache or SQLAlchemyCache; keep those that are here.

        Args:
            rows: what ``SELECT prompt, llm, idx, response FROM full_llm_cache ORDER BY prompt, llm, idx`` answers,
                from any driver. They are read page by page.

        Returns:
            How many answers were added.

        Raises:
            UsageError: the rows come in another order; those before are added.
        """
        return sum(len(self._store.add(page)) for page in _pages(rows))

    async def aadd_rows(self, rows: Iterable[Row]) -> int:
        """As ``add_rows``."""
        return sum([len(await self._store.aadd(page)) for page in _pages(rows)])


# -- how answers are kept ---------------------------------------------------------------------------------------------


class _BodyBlob(Wrapper):
    """Has documents keep values where ``AstraDBCache`` does."""

    def inwards(self, record: Record) -> Record:
        return replace(record, kind=Kind.BODY_BLOB)


class _Answers(KVBaseStore[Any]):
    """Takes the text of an answer, and gives the answer: a JSON array of texts, each a serialized generation."""

    _component = "langchain_cache"

    def _use(self, connection: Any, *, owned: bool) -> None:
        super()._use(connection, owned=owned)
        self._backend = _BodyBlob(self._backend)

    def encode_value(self, value: Any) -> Any:
        return value

    def decode_value(self, value: Any) -> RETURN_VAL_TYPE | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise UndecodableError(f"it is no answer but {type_name(value)}: a KVCache needs a collection of its own")
        try:
            return _loaded(value)
        except Exception as error:  # whatever the classes raise that are made of it; the error may show the text
            raise UndecodableError(f"it is no answer that can be made again ({type(error).__name__})") from None


def _text_of(generations: list[str]) -> str:
    return json.dumps(generations)


def _loaded(text: str) -> list[Generation]:
    """Return what a text holds: the newest form, or that of the first versions, which had the fields alone."""
    items = json.loads(text)
    if not isinstance(items, list):
        raise TypeError
    found = [loads(item, allowed_objects=_LOADED) if isinstance(item, str) else Generation(**item) for item in items]
    if not all(isinstance(item, Generation) for item in found):
        raise TypeError
    return found


def _checked(key: str, generations: RETURN_VAL_TYPE) -> list[tuple[str, str]]:
    """Return what is to be stored: nothing, and a warning, where it could not be made again of its text."""
    try:
        text = _text_of([dumps(generation) for generation in generations])
        _loaded(text)
    except Exception as error:  # as in decode_value; the model's answer is good all the same
        _logger.warning("The answer %s cannot be made again of its text (%s): not cached", key, type(error).__name__)
        return []
    return [(key, text)]


def _warn_of(error: DamagedValueError) -> None:
    _logger.warning("A cached answer is passed over: %s", error)


def _key_of(prompt: str, llm_string: str) -> str:
    """Return the key that ``AstraDBCache`` gives an answer."""
    return "#".join(
        hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
        for text in (prompt, llm_string)
    )


def _settings_of(llm: BaseLLM, stop: list[str] | None) -> str:
    from langchain_core.language_models.llms import get_prompts

    return get_prompts({**llm.dict(), "stop": stop}, [])[1]


# -- taking over ------------------------------------------------------------------------------------------------------


def _pages(rows: Iterable[Row]) -> Iterator[list[tuple[str, Any]]]:
    answers = groupby(rows, key=lambda row: (row[0], row[1]))
    items = ((_key_of(*question), _joined(list(some))) for question, some in answers)
    while page := list(islice(items, _PAGE)):
        yield page


def _joined(rows: list[Row]) -> str:
    if [row[2] for row in rows] != list(range(len(rows))):
        raise UsageError("add_rows takes rows by prompt, llm and idx, got others: add ORDER BY prompt, llm, idx.")
    return _text_of([_serialized(row[3]) for row in rows])


def _serialized(response: str) -> str:
    """Return a response as langchain-core serializes it: the first versions of its caches kept the bare text."""
    try:
        is_serialized = json.loads(response)["lc"] == 1
    except (ValueError, TypeError, LookupError):
        is_serialized = False
    return response if is_serialized else dumps(Generation(text=response))

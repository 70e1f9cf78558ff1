"""The stores under upstream's names: the constructors of langchain-community's and langchain-astradb's in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_kv.errors import ConfigError
from langchain_kv.places.arguments import Caller, Token, place_of, resolve
from langchain_kv.stores.base import KVBaseStore, KVByteStore, KVStore
from langchain_kv.stores.life import Options
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import exact, masked

if TYPE_CHECKING:
    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.base import Place

__all__ = ["AstraDBBaseStore", "AstraDBByteStore", "AstraDBStore"]

V = TypeVar("V")


class AstraDBBaseStore(KVBaseStore[V]):
    """The base for stores with a codec of their own: a subclass defines ``encode_value`` and ``decode_value``."""

    def __init__(
        self,
        collection_name: str,
        token: Token | None = None,
        api_endpoint: str | Place | None = None,
        astra_db_client: object = None,
        namespace: str | None = None,
        *,
        async_astra_db_client: object = None,
        pre_delete_collection: bool = False,
        setup_mode: AnySetupMode = SetupMode.SYNC,
        environment: str | None = None,
        ext_callers: Sequence[Caller] | None = None,
        api_options: object = None,
        keyspace: str | None = None,
        request_timeout_s: float | None = None,
        deadline_s: float | None = None,
        wake_timeout_s: float | None = None,
        ttl_s: float | None = None,
        refresh_on_read: bool = False,
        encryption: Encryption | None = None,
        statistics: bool = False,
    ) -> None:
        """Open a store; in SetupMode.SYNC its collection is there on return.

        Args:
            collection_name: the collection's name: 1 to 48 ASCII letters, digits and underscores.
            token: the Data API's token, an object that has it (``get_token()``, or a ``SecretStr``) or a function that
                returns it. None takes ``ASTRA_DB_APPLICATION_TOKEN``; no token at all is legal.
            api_endpoint: ``https://...`` of a Data API, another URL that ``KVStore`` takes, or a ``Place``; None takes
                ``LCKV_URL`` of the environment, then ``ASTRA_DB_API_ENDPOINT``.
            astra_db_client: a client object of astrapy, in place of token and api_endpoint; read by its attributes.
            namespace: the keyspace, by its older name; None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
            async_astra_db_client: as ``astra_db_client``; one of the two is enough.
            pre_delete_collection: drop the collection before it is made; not with OFF, which warns.
            setup_mode: SYNC, ASYNC or OFF, as a member, also of another package's enum, or as its name.
            environment: ``prod``, ``dev``, ``test``, ``hcd``, ``dse``, ``cassandra`` or ``other``; None reads it off.
            ext_callers: names, or (name, version) pairs, that go first in the User-Agent.
            api_options: an astrapy ``APIOptions``, read by its attributes.
            keyspace: the same as ``namespace``.
            request_timeout_s: seconds for one request, 30 if not given.
            deadline_s: seconds that an operation goes on without any success, or waits for others; 60 if not given.
            wake_timeout_s: seconds that a hibernated Astra database is waited for instead; 180 if not given.
            ttl_s: seconds after which what is written expires, unless the call says otherwise; None for ever.
            refresh_on_read: whether ``mget`` starts ``ttl_s`` anew: see ``KVStore``.
            encryption: the keys that values are encrypted with; then only what they encrypted is read.
            statistics: whether ``statistics()`` counts.

        Raises:
            ConfigError: an argument is wrong (a ValueError); the text says which and what to give.
            CollectionConflictError: the collection exists with other settings (a ValueError and an AstraDBError).
        """
        token = masked(token)
        client = astra_db_client if astra_db_client is not None else async_astra_db_client
        if client is not None:
            _check_alone(token, api_endpoint)
            token, api_endpoint, client_keyspace, api_options = _from_client(client, api_options)
            keyspace = client_keyspace if namespace is None and keyspace is None else keyspace
        place = place_of(api_endpoint)
        backend_options = resolve(
            collection_name,
            place,
            token=token,
            namespace=namespace,
            keyspace=keyspace,
            environment=environment,
            ext_callers=ext_callers,
            component=self._component,
            api_options=api_options,
            request_timeout_s=request_timeout_s,
            deadline_s=deadline_s,
            wake_timeout_s=wake_timeout_s,
        )
        options = Options(ttl_s, refresh_on_read, encryption, statistics)
        self._start(place, backend_options, options, setup_mode, pre_delete=pre_delete_collection)


class AstraDBStore(AstraDBBaseStore[Any], KVStore):
    """Keeps any JSON value by key: ``KVStore`` with upstream's name and constructor.

    Example:
        >>> store = AstraDBStore("kv", api_endpoint="memory:")
        >>> store.mset([("a", {"n": 1})])
        >>> store.mget(["a", "x"])
        [{'n': 1}, None]
    """


class AstraDBByteStore(AstraDBBaseStore[bytes], KVByteStore):
    """Keeps bytes by key: ``KVByteStore`` with upstream's name and constructor.

    Example:
        >>> store = AstraDBByteStore(collection_name="blobs", api_endpoint="memory:")
        >>> store.mset([("a", b"1")])
        >>> store.mget(["a", "x"])
        [b'1', None]
    """


def _check_alone(token: object, api_endpoint: object) -> None:
    if token is not None or api_endpoint is not None:
        raise ConfigError(
            "You cannot pass 'astra_db_client' or 'async_astra_db_client' together with 'token' or 'api_endpoint': the"
            " client has its own. Pass one or the other."
        )


def _from_client(client: Any, api_options: Any) -> tuple[Any, str, str | None, Any]:
    """Return token, endpoint, keyspace and options of a client: an AstraDB of astrapy before 2.0, or a later Database.

    A Database answers any unknown attribute with an object, so only values of the expected types count.
    """
    endpoint = _text_of(client, "base_url", "api_endpoint")
    if endpoint is None:
        raise ConfigError(
            f"A {type_name(client)} is not a client that names its endpoint (base_url or api_endpoint): pass token="
            " and api_endpoint= instead."
        )
    api_path = _text_of(client, "api_path")
    if api_options is None:
        api_options = getattr(client, "api_options", None) if api_path is None else _ClientOptions(api_path)
    return masked(_text_of(client, "token")), endpoint, _text_of(client, "namespace", "keyspace"), api_options


def _text_of(client: Any, *names: str) -> str | None:
    found = (getattr(client, name, None) for name in names)
    return next((exact(value) for value in found if isinstance(value, str)), None)


class _ClientOptions:
    """The API path of an old client, where an APIOptions would have it."""

    def __init__(self, api_path: str) -> None:
        self.data_api_url_options = self
        self.api_path = api_path

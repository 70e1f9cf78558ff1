"""Connecting to a cluster: the driver's objects made of our settings, with certificates or a secure connect bundle."""

from __future__ import annotations

import json
import logging
import ssl
import time
import zipfile
from typing import Any, Final

import cassandra.cluster as driver
from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    FallthroughRetryPolicy,
    RetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import tuple_factory

from langchain_kv._version import __version__
from langchain_kv.engines.cassandra.failures import is_slow, not_connected, nothing_listens
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import ConfigError
from langchain_kv.limits import FIRST_CONTACT_S

__all__ = ["connect"]

# Without this, what the driver logs would go to stderr in programs that set up no logging, beside the error we raise.
logging.getLogger("cassandra").addHandler(logging.NullHandler())

PROTOCOLS: Final = (5, 4)
"""Versions of the native protocol: Apache Cassandra 4 and later; older ones, and Astra DB."""

FIRST_CONTACT_DELAY_S: Final = 0.25
"""Seconds between two attempts to connect where nothing listens."""

RECONNECT_MAX_S: Final = 3
"""Seconds, at most, between two attempts to reach a node that went: operations wait for it, until their deadlines."""

BUNDLE_FILES: Final = ("config.json", "ca.crt", "cert", "key")
"""What the driver reads of a secure connect bundle."""


def connect(settings: ClusterSettings) -> tuple[Any, Any]:
    """Return a cluster and a session of the driver.

    Where nothing listens yet, that is waited for a little; nodes that are there, and have too much to do, as in every
    operation.

    Raises:
        AuthError: the cluster does not accept the login.
        ConnectError: no node answers.
        ConfigError: the certificates or the bundle cannot be read.
    """
    begun = time.monotonic()
    while True:
        try:
            return _connect(settings)
        except ConfigError:
            raise
        except Exception as error:
            wait_s = settings.deadline_s if is_slow(error) else FIRST_CONTACT_S if nothing_listens(error) else 0.0
            if time.monotonic() + FIRST_CONTACT_DELAY_S >= begun + min(wait_s, settings.deadline_s):
                raise not_connected(error, settings) from None
        time.sleep(FIRST_CONTACT_DELAY_S)


def _connect(settings: ClusterSettings) -> tuple[Any, Any]:
    for version in PROTOCOLS:
        cluster = None
        try:
            cluster = _cluster(settings, version)
            return cluster, cluster.connect()
        except Exception as error:
            if cluster is not None:
                cluster.shutdown()
            # Asked for a version that it does not have, a node says so; left to itself the driver logs each attempt.
            if version == PROTOCOLS[-1] or "protocol version" not in str(error).replace("_", " "):
                raise
    raise AssertionError("PROTOCOLS is empty")


def _cluster(settings: ClusterSettings, version: int) -> Any:
    # A bundle names its data centre, which the driver takes from the first node that answers.
    policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(settings.local_dc or ""))
    level = ConsistencyLevel.name_to_value[settings.consistency.upper()]

    def profile(consistency: int, retry: RetryPolicy) -> Any:
        return driver.ExecutionProfile(
            load_balancing_policy=policy,
            retry_policy=retry,
            consistency_level=consistency,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=settings.request_timeout_s,
            row_factory=tuple_factory,
        )

    reads = profile(level, RetryPolicy())
    return driver.Cluster(
        **_place(settings),
        protocol_version=version,
        auth_provider=PlainTextAuthProvider(settings.user, settings.password or "") if settings.user else None,
        execution_profiles={
            driver.EXEC_PROFILE_DEFAULT: reads,
            "read": reads,
            "serial": profile(ConsistencyLevel.LOCAL_SERIAL, RetryPolicy()),
            # By an index of vectors Cassandra asks one replica of each range, whatever level is asked for.
            "nearest": profile(ConsistencyLevel.LOCAL_ONE, RetryPolicy()),
            # The default policy sends a statement to the next node when a connection breaks, though the first one may
            # have carried it out: the second time could undo what another writer did in between.
            "write": profile(level, FallthroughRetryPolicy()),
        },
        connect_timeout=settings.connect_timeout_s,
        control_connection_timeout=settings.connect_timeout_s,
        reconnection_policy=ExponentialReconnectionPolicy(0.5, RECONNECT_MAX_S, max_attempts=None),
        application_name="langchain-kv",
        application_version=__version__,
    )


def _place(settings: ClusterSettings) -> dict[str, Any]:
    """Return the driver's arguments that say where the cluster is."""
    if settings.bundle is None:
        context = _ssl_context(settings) if settings.ssl else None
        return {"contact_points": list(settings.hosts), "port": settings.port, "ssl_context": context}
    _check_bundle(settings.bundle)
    # In the temporary directory, which only this user reads: a bundle may lie where nobody may write.
    return {
        "cloud": {
            "secure_connect_bundle": settings.bundle,
            "use_default_tempdir": True,
            "connect_timeout": settings.connect_timeout_s,
        }
    }


def _check_bundle(path: str) -> None:
    """Say what is wrong with a bundle, before the driver meets it.

    Raises:
        ConfigError: it cannot be read, or is not a secure connect bundle.
    """
    try:
        with zipfile.ZipFile(path) as bundle:
            missing = set(BUNDLE_FILES) - set(bundle.namelist())
            if not missing:
                json.loads(bundle.read("config.json"))["host"]
    except (OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a secure connect bundle ({type(error).__name__}): download it again from Astra DB."
        ) from None
    if missing:
        raise ConfigError(
            f"{path} is not a secure connect bundle: it lacks {', '.join(sorted(missing))}. Download it again from"
            " Astra DB."
        )


def _ssl_context(settings: ClusterSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.check_hostname = settings.verify_hostname
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The certificates of the cassandra: URL cannot be read ({error.strerror or error}): check ca_file=,"
            " cert_file= and key_file=."
        ) from None
    return context

"""How to reach a cluster, and how to use it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

__all__ = ["ClusterSettings"]

PATIENCE_S: Final = 2.0
"""Seconds that an operation goes on without any success where no store says how long: a server's clients are patient
themselves, and are better told soon (the real Data API tells after 2 s, measured)."""


@dataclass(frozen=True)
class ClusterSettings:
    """How to reach a cluster, and how to use it. The password is never shown.

    Attributes:
        hosts: names or addresses of some of its nodes; the driver finds the others. None for a bundle.
        port: where every node speaks CQL.
        user: None logs in to a cluster that asks for nobody.
        password: the user's.
        local_dc: the data centre that is asked; None takes that of the first host that answers.
        consistency: of reads and of committed writes. Conditions of writes are checked at LOCAL_SERIAL whatever it is,
            as the Data API does: two serial levels on one row would not see each other.
        connect_timeout_s: seconds for connecting to one node.
        request_timeout_s: seconds for one statement.
        deadline_s: seconds that an operation goes on trying without any success: a store's own argument, no parameter
            of the URL.
        in_chunk: keys of one reading statement; 1 reads each key by a statement of its own.
        replication: replicas of keyspaces that are created; None stands for 3, or as many as there are nodes.
        ssl: whether connections are encrypted.
        ca_file: the authorities whose certificates are trusted; None trusts the system's.
        cert_file: the client's certificate, for clusters that ask for one.
        key_file: its key; None looks for it in ``cert_file``.
        verify_hostname: whether a node's certificate must carry the address that is connected to.
        bundle: the path of Astra DB's secure connect bundle, which says hosts, data centre and certificates.
    """

    hosts: tuple[str, ...]
    port: int = 9042
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    local_dc: str | None = None
    consistency: str = "local_quorum"
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 10.0
    deadline_s: float = PATIENCE_S
    in_chunk: int = 50
    replication: int | None = None
    ssl: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_hostname: bool = True
    bundle: str | None = None

    def patient_for(self, deadline_s: float) -> ClusterSettings:
        """Return these settings for operations that go on for so long without success: no wait of theirs is longer."""
        return replace(
            self,
            connect_timeout_s=min(self.connect_timeout_s, deadline_s),
            request_timeout_s=min(self.request_timeout_s, deadline_s),
            deadline_s=deadline_s,
        )

    def without_password(self) -> ClusterSettings:
        """Return these settings as they may be written down."""
        return replace(self, password=None)

    def shown(self) -> str:
        """Return the hosts and the port, or the bundle's path, as in the URL."""
        if self.bundle is not None:
            return self.bundle
        return f"{','.join(f'[{host}]' if ':' in host else host for host in self.hosts)}:{self.port}"

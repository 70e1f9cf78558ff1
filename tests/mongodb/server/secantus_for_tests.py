"""SecantusDB as the tests want it: ``python secantus_for_tests.py PORT DIRECTORY`` serves until it is killed.

Its own command cannot do this: ``secantusd-py`` 0.7.0b3 reads ``ttl_sweep_seconds`` and hands it on to nobody.
"""

from __future__ import annotations

import sys

from secantus import SecantusDBServer

port, directory = sys.argv[1:]
server = SecantusDBServer(
    "127.0.0.1",
    int(port),
    directory,
    replica_set_name=None,
    enable_test_commands=False,
    ttl_sweep_seconds=0,
    cache_size="4G",
)
server.start()
server.wait()

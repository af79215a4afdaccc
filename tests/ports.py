"""Ports for servers that a test starts itself.

They are below those that the system gives to outgoing connections: a server that starts seconds
later, or again after it was killed, must not find that a client somewhere has taken its port.
"""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    for port in random.sample(range(20_000, 32_768), 1_000):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free between 20000 and 32767")

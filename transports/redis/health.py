"""Whether a server can be trusted with messages: looked at on every new connection.

A server that evicts keys when it is full would lose messages without a word, so it is refused
unless the URL says ``allow_eviction=true``. One that keeps nothing on disk is used, with a warning
in the log, once per process and server.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

import msgspec

from queue_core.errors import AccessRefused, ConfigError, StoreCorrupt, TransportError
from queue_core.transports.redis.keys import FORMAT
from queue_core.transports.redis.server import Server

logger = logging.getLogger(__name__)

_OLDEST: Final = (6, 2)


class Health:
    """What has been said about which server, so that it is said once. Thread-safe."""

    def __init__(self) -> None:
        """Nothing has been said."""
        self._lock = threading.Lock()
        self._warned: set[str] = set()

    def check(self, server: Server, *, allow_eviction: bool) -> None:
        """Look at a server that has just been connected to; blocks for two or three round trips.

        Raises:
            ConfigError: it is too old, or evicts.
            StoreCorrupt: another version of this package uses its keys in another way.
            AccessRefused: INFO or EVAL is not permitted.
        """
        info = _parse(server.command("INFO"))
        _check_version(server, info.get("redis_version", "0"))
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not allow_eviction:
            raise ConfigError(
                f"{server.place} evicts keys when it is full (maxmemory-policy {policy}), and "
                "messages would be lost without a word; set maxmemory-policy to noeviction, or "
                "accept the loss with the URL option allow_eviction=true"
            )
        found = server.run("open", msgspec.msgpack.encode((FORMAT,))).decode()
        if found != FORMAT:
            raise StoreCorrupt(
                f"{server.place} holds data of the format {found!r}, and this version of "
                f"queue_core knows {FORMAT!r}; update queue_core, or choose another prefix"
            )
        if info.get("aof_enabled") == "0":
            self._warn_about_persistence(server)

    def _warn_about_persistence(self, server: Server) -> None:
        with self._lock:
            if server.place in self._warned:
                return
            self._warned.add(server.place)
        try:
            answer = server.command("CONFIG", "GET", "save")
            snapshots = bool(answer and answer[1])
        except AccessRefused:
            snapshots = True  # nobody knows
        except TransportError as error:
            logger.debug("%s does not tell its save points: %s", server.place, error)
            snapshots = True
        if snapshots:
            logger.warning(
                "%s writes snapshots only: after a crash of the server, messages since the last "
                "one are lost; set appendonly yes",
                server.place,
            )
        else:
            logger.warning(
                "%s keeps nothing on disk: when the server ends, all messages are lost; set "
                "appendonly yes",
                server.place,
            )


def _check_version(server: Server, text: str) -> None:
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        raise ConfigError(f"{server.place} is version {text}; 6.2 or newer is needed")


def _parse(answer: bytes) -> dict[str, str]:
    lines = answer.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)

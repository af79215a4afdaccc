"""Whether a server can be used for messages: looked at on every new connection.

A server that evicts keys when it is full would lose messages without a word, so it is refused
unless the URL says ``allow_eviction=true``. How well it keeps them on disk is told by `durability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from queue_core.errors import ConfigError, StoreCorrupt
from queue_core.transports.redis.keys import FORMAT
from queue_core.transports.redis.server import Server

EVICTS_NOTHING: Final = "noeviction"
_OLDEST: Final = (6, 2)


def check(server: Server, *, allow_eviction: bool) -> None:
    """Look at a server that has just been connected to; blocks for three or four round trips.

    Raises:
        ConfigError: it is too old, evicts, or is no standalone server.
        StoreCorrupt: another version of this package uses its keys in another way.
        AccessRefused: INFO, EVAL or a command that the scripts use is not permitted.
        ConnectionLost: it is a read-only replica, or loads its data.
    """
    info = read_info(server)
    mode = info.get("redis_mode", "standalone")
    if mode != "standalone":
        raise ConfigError(
            f"{server.place} runs in {mode} mode, which is not supported: name a standalone "
            "server, or several URLs separated by ';' of which the first that answers is used"
        )
    _check_version(server, info.get("redis_version", "0"))
    policy = info.get("maxmemory_policy", EVICTS_NOTHING)
    if policy != EVICTS_NOTHING and not allow_eviction:
        raise ConfigError(
            f"{server.place} evicts keys when it is full (maxmemory-policy {policy}), and "
            f"messages would be lost without a word; set maxmemory-policy to {EVICTS_NOTHING}, or "
            "accept the loss with the URL option allow_eviction=true"
        )
    _try_waiting(server)
    found = server.run("open", msgspec.msgpack.encode((FORMAT,))).decode()
    if found != FORMAT:
        raise StoreCorrupt(
            f"{server.place} holds data of the format {found!r}, and this version of "
            f"queue_core knows {FORMAT!r}; update queue_core, or choose another prefix"
        )


def _try_waiting(server: Server) -> None:
    """Try the one command that no script can try, with a timeout that is no timeout.

    A real one takes the server a tenth of a second to notice; permissions are looked at first.
    """
    try:
        server.command("BLPOP", server.key("nothing"), "-1")
    except StoreCorrupt as error:
        if "timeout is negative" not in str(error):
            raise


def read_info(server: Server) -> Mapping[str, str]:
    """Return what INFO tells, name -> value; one round trip."""
    lines = server.command("INFO").decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _check_version(server: Server, text: str) -> None:
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        raise ConfigError(f"{server.place} is version {text}; 6.2 or newer is needed")

"""What the exceptions of redis-py and the server's error texts mean, in one place.

==========================================  ==================================================
Redis says                                  the caller gets
==========================================  ==================================================
no connection, LOADING, BUSY, READONLY,     ConnectionLost: effect unknown, may be repeated
MASTERDOWN, CLUSTERDOWN, TRYAGAIN,
UNBLOCKED (by a failover)
no answer in time                           ConnectTimeout, a ConnectionLost
OOM, MISCONF, NOREPLICAS                    BrokerFull
WRONGPASS, NOAUTH, NOPERM                   AccessRefused
WRONGTYPE, and any error of a script        StoreCorrupt
DB index out of range, MOVED, CROSSSLOT     ConfigError
==========================================  ==================================================

Redis 6 wraps the error of a command in a script into another text, Redis 7 hands it on: so the word
is looked for anywhere in the text. Passwords never pass here: neither redis-py's exceptions nor the
server's texts hold them.
"""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    StoreCorrupt,
)

_NOT_ALLOWED: Final = re.compile(r"NOPERM|no permissions? to|can't run this command|can't access")
_PASSWORD: Final = re.compile(r"WRONGPASS|NOAUTH|invalid username|Authentication required", re.I)
_FULL: Final = re.compile(r"\bOOM\b|used memory > 'maxmemory'|MISCONF|NOREPLICAS")
_LATER: Final = re.compile(
    r"\b(?:LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|UNBLOCKED)\b|loading the dataset|"
    r"against a read only replica|max number of clients"
)
_CLUSTER: Final = re.compile(r"\b(?:MOVED|ASK|CROSSSLOT)\b")


def explain(error: Exception, place: str, doing: str) -> QueueCoreError:
    """Return the error of ours that ``error`` means.

    ``place`` says which server, without its password, and ``doing`` names the command or script.
    """
    text = str(error)
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return ConnectTimeout(f"{place} did not answer in time ({doing}): {text}")
    if isinstance(error, exceptions.AuthenticationError) or _PASSWORD.search(text):
        if "without any password configured" in text:
            return AccessRefused(f"{place} asks for no password; leave it out of the URL")
        return AccessRefused(
            f"{place} refuses user and password: {text}; write them into the URL as "
            "redis://user:password@host, or redis://:password@host without ACL users"
        )
    if isinstance(error, exceptions.NoPermissionError) or _NOT_ALLOWED.search(text):
        return AccessRefused(
            f"{place} does not permit {doing}: {text}; the ACL user needs "
            "+@read +@write +eval +evalsha +time +info +blpop on the keys of its prefix"
        )
    if isinstance(error, exceptions.OutOfMemoryError) or _FULL.search(text):
        return BrokerFull(
            f"{place} has no room ({doing}): {text}; consumers can still drain it, or raise "
            "maxmemory"
        )
    if isinstance(error, exceptions.BusyLoadingError | exceptions.ReadOnlyError) or _LATER.search(
        text
    ):
        return ConnectionLost(f"{place} cannot serve now ({doing}): {text}")
    if _CLUSTER.search(text):
        return ConfigError(f"{place} is a node of a cluster, which is not supported: {text}")
    if "DB index is out of range" in text or "invalid DB index" in text:
        return ConfigError(
            f"{place}: there is no such database: {text}; its number stands behind the last / of "
            "the URL, and the server's setting databases says how many there are"
        )
    if isinstance(error, exceptions.ResponseError):
        return StoreCorrupt(
            f"{place} holds something else than our data under our keys ({doing}): {text}; choose "
            "another prefix with the URL option prefix"
        )
    return ConnectionLost(f"{place} cannot be reached ({doing}): {text}")

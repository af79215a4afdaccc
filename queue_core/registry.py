"""From a URL scheme to a transport.

Transports are found by name: first those given to `register_transport`, then the entry points of
the group ``queue_core.transports`` that installed packages declare. A transport's module, and with
it its driver, is imported only when a URL with its scheme is used. The dictionaries below belong to
the whole process; using them is optional, since `Connection(url, transport=...)` takes a transport
directly.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from queue_core.errors import ConfigError, nearest
from queue_core.transport import Transport

ENTRY_POINT_GROUP = "queue_core.transports"

# Well-known spellings that are not ours.
_ALIASES = {"rabbitmq": "amqp", "pyamqp": "amqp", "sqlite3": "sqlite", "mem": "memory"}
# What celery's programs write before the scheme of a database: sqla+postgresql.
_PREFIXES = ("sqla", "db")


class _EntryPoint(Protocol):
    @property
    def name(self) -> str: ...
    def load(self) -> object: ...


# Which extra brings a driver's module; any other belongs to whoever wrote the transport.
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}
_INSTALL = "install it, or correct the entry point of the transport if it names this module"

_registered: dict[str, Transport] = {}
_loaded: dict[str, Transport] = {}
_lock = threading.Lock()


def register_transport(scheme: str, transport: Transport) -> None:
    """Make ``transport`` answer for ``scheme://`` URLs, before any entry point. Thread-safe.

    Raises:
        ConfigError: ``transport`` lacks methods of `queue_core.transport.Transport`; they are
            named.
    """
    check_transport(scheme, transport)
    with _lock:
        _registered[scheme] = transport


def find_transport(scheme: str) -> Transport:
    """Return the transport for a URL scheme, importing it at the first use. Thread-safe.

    Raises:
        ConfigError: there is none (the nearest name is given), or its driver is not installed (the
            pip command is given).
    """
    name = scheme.partition("+")[0]
    with _lock:
        known = _registered.get(name) or _loaded.get(name)
    if known is not None:
        return known
    transport = _load(name, scheme)
    with _lock:
        return _loaded.setdefault(name, transport)


def known_schemes() -> list[str]:
    """Return every scheme that `find_transport` would find, sorted.

    Reads the metadata of installed packages.
    """
    with _lock:
        names = set(_registered)
    return sorted(names | {point.name for point in _entry_points()})


def _load(name: str, scheme: str) -> Transport:
    for point in _entry_points():
        if point.name == name:
            try:
                transport = point.load()
            except ModuleNotFoundError as error:
                extra = _EXTRAS.get(error.name or "")
                advice = f"run: pip install 'queue-core[{extra}]'" if extra else _INSTALL
                raise ConfigError(
                    f"the transport for {name}:// needs the Python module {error.name!r}, "
                    f"which is not installed; {advice}"
                ) from error
            except (AttributeError, ImportError) as error:
                raise ConfigError(
                    f"the entry point of {name}:// cannot be loaded: {error}; "
                    "look at [options.entry_points] of the package that declares it"
                ) from error
            return check_transport(name, transport)
    raise ConfigError(_unknown(scheme, known_schemes()))


def _entry_points() -> Iterable[_EntryPoint]:
    # importlib.metadata costs 25 ms to import, and a program that registers its transport never
    # needs it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return entry_points(group=ENTRY_POINT_GROUP)


def check_transport(scheme: str, transport: object) -> Transport:
    """Return ``transport`` if it is one. Raises ConfigError, which names what it lacks."""
    if isinstance(transport, Transport):
        return transport
    missing = [
        name for name in ("name", "features", "check", "open") if not hasattr(transport, name)
    ]
    raise ConfigError(
        f"the transport for {scheme}:// ({transport!r}) lacks {', '.join(missing)}; see "
        "queue_core.transport.Transport"
    )


def _unknown(scheme: str, known: list[str]) -> str:
    name, _, rest = scheme.partition("+")
    meant = rest.partition("+")[0] if name in _PREFIXES else name
    near = _ALIASES.get(meant) or nearest(meant, known)
    hint = f"did you mean {near}://? " if near else ""
    return (
        f"there is no transport for {name}://; {hint}known: "
        f"{', '.join(f'{item}://' for item in known)}"
    )

"""Broker URLs: reading them, their typed options, and showing them without their secrets.

A URL reads ``transport[+driver]://[user[:password]@][host][:port][/path][?option=value&...]``. This
module knows the grammar; which transports exist is the registry's business, and a transport says
which options it has through ``check_options``.

The rules: ``str``, ``repr`` and every error show a password as ``***``, also when the URL cannot
be read; only ``secret()`` gives the whole text, for the driver. Nothing is guessed in silence: a
text that can be read in two ways is refused, with the spellings that were probably meant.
Reserved characters in a user or password are percent-encoded (``@`` is ``%40``, ``:`` ``%3A``,
``/`` ``%2F``, ``?`` ``%3F``, ``%`` ``%25``); a raw ``@`` or ``:`` in a password is accepted where
it has one meaning.

What the path means depends on the scheme. On ``amqp`` it is the virtual host, see
`BrokerURL.vhost`: ``amqp://host``, ``amqp://host/`` and ``amqp://host//`` all mean ``/``. On
``sqlite`` it is a file: three slashes for a relative path, four for an absolute one. On ``memory``
there is none, since there the host is the name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar, cast, overload
from urllib.parse import quote, unquote, unquote_plus

import msgspec

from queue_core.errors import ConfigError, nearest

V = TypeVar("V", bound=str | int | float | bool)

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9.+-]*)://(?P<authority>[^/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_START: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9.+-]*:?)?//?|")
_HOST: Final = re.compile(r"[\w.~%-]*")
_OPTION: Final = re.compile(r"[\w.-]+")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SECRET_NAME: Final = re.compile(r"pass|pwd|token|secret", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_EXAMPLES: Final = "sqlite:///queue.db, amqp://user:password@host:5672//, memory://name"
_NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})
_MASK: Final = "***"

TLS_OPTIONS: Final = ("cafile", "certfile", "keyfile", "verify")
"""What a URL says of TLS, on transports whose drivers have no words of their own for it."""


class BrokerURL(msgspec.Struct, frozen=True):
    """One broker's address; made by ``parse``.

    Attributes:
        scheme: all before ``://`` in lower case, such as ``postgresql+psycopg``.
        user: percent-decoded, None when not given.
        password: percent-decoded, None when not given; ``str`` and ``repr`` never show it.
        host: in lower case, an IPv6 address without brackets; empty when not given. On ``memory``
            it is the broker's name, percent-decoded, in its own case.
        port: 1 to 65535, None when not given.
        path: raw, with its leading slash; empty when not given.
        options: the query, percent-decoded; each name occurs once.
    """

    scheme: str
    user: str | None = None
    password: str | None = None
    host: str = ""
    port: int | None = None
    path: str = ""
    options: Mapping[str, str] = _NO_OPTIONS

    @property
    def transport(self) -> str:
        """The name for the registry: the scheme up to the first ``+``."""
        return self.scheme.partition("+")[0]

    @property
    def driver(self) -> str | None:
        """What follows the first ``+`` of the scheme; None when there is none."""
        return self.scheme.partition("+")[2] or None

    @property
    def vhost(self) -> str:
        """The virtual host of an AMQP URL, percent-decoded; ``/`` when the URL names none.

        ``amqp://host``, ``amqp://host/`` and ``amqp://host//`` all mean ``/``, as they do for pika
        and kombu. RabbitMQ's URI specification reads the second as the virtual host with the
        empty name, which nobody has.
        """
        return unquote(self.path[1:]) or "/"

    @property
    def database(self) -> str:
        """The path without its first slash, percent-decoded.

        A database, a Redis number, or a file: ``sqlite:///rel.db`` gives ``rel.db`` and
        ``sqlite:////abs.db`` gives ``/abs.db``. Empty when the URL has no path.
        """
        return unquote(self.path[1:])

    def secret(self) -> str:
        """Return the whole URL, passwords included, for a driver. It must never be logged."""
        return self._text(reveal=True)

    def __hash__(self) -> int:
        return hash(self.secret())

    def __str__(self) -> str:
        return self._text(reveal=False)

    def __repr__(self) -> str:
        return f"BrokerURL({self._text(reveal=False)!r})"

    def _text(self, *, reveal: bool) -> str:
        parts = [self.scheme, "://"]
        if self.user is not None:
            parts.append(quote(self.user, safe=""))
        if self.password is not None:
            parts += [":", quote(self.password, safe="") if reveal else _MASK]
        if self.user is not None or self.password is not None:
            parts.append("@")
        parts.append(f"[{self.host}]" if ":" in self.host else quote(self.host, safe=".~%-"))
        if self.port is not None:
            parts.append(f":{self.port}")
        parts.append(self.path)
        for mark, (name, value) in zip(
            "?" + "&" * len(self.options), self.options.items(), strict=False
        ):
            shown = quote(value, safe="") if reveal else _shown(name, value)
            parts.append(f"{mark}{quote(name, safe='')}={shown}")
        return "".join(parts)

    @overload
    def option(self, name: str, kind: type[V], default: V) -> V: ...

    @overload
    def option(self, name: str, kind: type[V], default: None = None) -> V | None: ...

    def option(self, name: str, kind: type[V], default: V | None = None) -> V | None:
        """Return the option ``name`` as a ``kind``, or ``default`` when the URL does not have it.

        ``kind`` is ``str``, ``int``, ``bool`` (true/false, yes/no, on/off, 1/0) or ``float``: a
        finite number, or a duration with a unit (``250ms``, ``30s``, ``5m``, ``1h``, ``2d``),
        which is given in seconds.

        Raises:
            ConfigError: the value is not of that kind.
        """
        text = self.options.get(name)
        if text is None:
            return default
        reader, expected = _READERS[kind]
        try:
            return cast(V, reader(text.strip()))
        except ValueError:
            raise ConfigError(
                f"option {name!r} of the broker URL {self} must be {expected}, "
                f"not {_shown(name, text)!r}"
            ) from None

    def seconds(self, name: str, default: float, *, low: float, high: float) -> float:
        """Return the duration ``name`` in seconds, or ``default``, whatever that is.

        Raises:
            ConfigError: what the URL says is no duration from ``low`` to ``high`` seconds.
        """
        value = self.option(name, float, default)
        if name in self.options and not low <= value <= high:
            raise ConfigError(
                f"option {name!r} of the broker URL {self} is a number of seconds from {low:g} to "
                f"{high:g}"
            )
        return value

    def check_tls(self, secure: str) -> None:
        """Refuse `TLS_OPTIONS` in a URL that is not ``secure``, and a key without a certificate.

        Raises:
            ConfigError: it says what is missing.
        """
        self.option("verify", bool, default=True)
        for name in TLS_OPTIONS:
            if name in self.options and self.transport != secure:
                raise ConfigError(
                    f"option {name!r} of the broker URL {self} is for TLS: begin the URL with "
                    f"{secure}://"
                )
        if "keyfile" in self.options and "certfile" not in self.options:
            raise ConfigError(f"option 'keyfile' of the broker URL {self} needs 'certfile' too")

    def check_driver(self) -> None:
        """Refuse a ``+driver`` in the scheme, for transports that have only one way.

        Raises:
            ConfigError: there is one.
        """
        if self.driver is not None:
            raise ConfigError(
                f"the broker URL {self} asks for the driver {self.driver!r}, which the "
                f"{self.transport} transport does not have; write {self.transport}://..."
            )

    def check_options(self, allowed: Iterable[str]) -> None:
        """Refuse an option that is not in ``allowed``.

        Raises:
            ConfigError: it names the unknown option, the nearest allowed one, and all of them.
        """
        names = sorted(allowed)
        for name in self.options:
            if name in names:
                continue
            near = nearest(name, names)
            advice = f"did you mean {near!r}? " if near else ""
            known = f"known: {', '.join(names)}" if names else "this transport has no options"
            raise ConfigError(f"unknown option {name!r} in the broker URL {self}: {advice}{known}")


def parse(url: object) -> BrokerURL:
    """Read one broker URL, a string; white space around it is ignored.

    Raises:
        ConfigError: the text is empty, no URL, or can be read in two ways. The message says what is
            wrong and how to write it; passwords are masked.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a broker URL is a string such as {_EXAMPLES}, not {type(url).__name__}")
    text = url.strip()
    match = _URL.fullmatch(text)
    if match is None:
        _refuse_no_url(text)
    if _CONTROL.search(text):
        _refuse(text, "it contains a control character", "remove it, or percent-encode a path")
    if _BAD_ESCAPE.search(text):
        _refuse(
            text, "a '%' must be followed by two hexadecimal digits", "write a literal '%' as %25"
        )
    scheme, authority = match["scheme"].lower(), match["authority"]
    path, query = match["path"] or "", match["query"] or ""
    if ("@" in authority or ":" in authority) and "@" in path + query:
        _refuse(
            text,
            "an '@' after the first '/' or '?' can belong to the password or to what follows",
            "in a password write '/' as %2F and '?' as %3F; in a path or option write '@' as %40",
        )
    if "://" in path:
        _refuse(
            text,
            "a second '://' stands in the path",
            "separate whole URLs by ';' where several may stand",
        )
    credentials, at, address = authority.rpartition("@")
    user, colon, password = credentials.partition(":")
    host, port = _read_address(text, scheme, address)
    result = BrokerURL(
        scheme=scheme,
        user=_decode(text, user, "the user") if user or (at and not colon) else None,
        password=_decode(text, password, "the password") if colon else None,
        host=host,
        port=port,
        path=path,
        options=_read_query(text, query),
    )
    _decode(text, path, "the path")
    _check_scheme_rules(text, result)
    return result


def parse_alternates(urls: object) -> tuple[BrokerURL, ...]:
    """Read one or more broker URLs separated by ``;``, in the order in which they are to be tried.

    A ``;`` inside a password is written ``%3B``. Empty pieces are skipped.

    Raises:
        ConfigError: nothing is given, or one of the URLs cannot be read.
    """
    if not isinstance(urls, str):
        return (parse(urls),)
    pieces = [piece for piece in urls.split(";") if piece.strip()]
    if len(pieces) < 2:
        return (parse(pieces[0] if pieces else ""),)
    result = []
    for number, piece in enumerate(pieces, 1):
        try:
            result.append(parse(piece))
        except ConfigError as error:
            note = f"URL {number} of {len(pieces)}: {error} (write a ';' inside a password as %3B)"
            raise ConfigError(note) from None
    return tuple(result)


def redact(text: str) -> str:
    """Return ``text``, which should be a broker URL but need not be one, without its passwords.

    It rather hides too much than too little: what stands between the user and the last ``@`` goes,
    and without an ``@`` everything from the first ``:`` that no port follows.
    """
    start = cast("re.Match[str]", _START.match(text)).end()
    head, rest = text[:start], text[start:]
    before, at, after = rest.rpartition("@")
    if at:
        user, colon, _ = before.partition(":")
        before = f"{user}:{_MASK}" if colon and head.endswith("://") else _MASK
        if not colon and head.endswith("://") and not re.search(r"[/?;]", user):
            before = user
    else:
        name, colon, tail = after.partition("?")[0].partition(":")
        if colon and not re.match(r"\d{1,5}(?:/|\Z)", tail):
            return f"{head}{name}:{_MASK}"
    address, mark, query = after.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    shown = "&".join(n + e + (_shown(n, unquote(v)) if e else "") for n, e, v in pairs)
    return head + before + at + address + mark + shown


def _shown(name: str, value: str) -> str:
    """Return an option's value as it may be shown."""
    if _SECRET_NAME.search(unquote_plus(name)):
        return _MASK
    return redact(value) if "://" in value else quote(value, safe="/:,")


def _refuse(text: str, reason: str, advice: str) -> NoReturn:
    raise ConfigError(f"cannot read the broker URL {redact(text)!r}: {reason}; {advice}")


def _refuse_no_url(text: str) -> NoReturn:
    if not text:
        raise ConfigError(f"the broker URL is empty; write for example {_EXAMPLES}")
    scheme, _, rest = text.partition(":")
    if rest.startswith("/") and not rest.startswith("//"):
        _refuse(text, "after the scheme there is one '/' instead of '://'", f"write {scheme}://...")
    if "://" in text:
        _refuse(text, "what stands before '://' is no scheme", f"write for example {_EXAMPLES}")
    _refuse(text, "there is no '://' after a scheme", f"write for example {_EXAMPLES}")


def _decode(text: str, part: str, what: str) -> str:
    """Percent-decode ``part``; the decoder's own error holds the secret and is not chained."""
    decoded = None
    with contextlib.suppress(UnicodeDecodeError):
        decoded = unquote(part, errors="strict")
    if decoded is None:
        _refuse(text, f"{what} is not UTF-8 after percent-decoding", "encode it as UTF-8 first")
    if _CONTROL.search(decoded):
        _refuse(text, f"{what} contains a control character", "remove it")
    return decoded


def _read_address(text: str, scheme: str, address: str) -> tuple[str, int | None]:
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        try:
            ipaddress.IPv6Address(host.replace("%25", "%"))
        except ValueError:
            bracket = ""
        if not bracket or (rest and not rest.startswith(":")):
            _refuse(text, "the address in brackets is no IPv6 address", "write [::1] or [::1]:5672")
        digits = rest[1:]
    else:
        host, _, digits = address.partition(":")
        if ":" in digits:
            _refuse(text, "more than one ':' in the address", "write IPv6 as [::1]:5672")
        if "," in host:
            _refuse(text, "several hosts", "separate whole URLs by ';'")
        if not _HOST.fullmatch(host):
            _refuse(text, "the host has characters that no host name has", "check it for a typo")
    if scheme.partition("+")[0] == "memory":
        host = _decode(text, host, "the name")
    else:
        host = host.lower()
    if not digits:
        return host, None
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536):
        _refuse(
            text,
            "the port is not a number from 1 to 65535",
            "if it is part of a password, write '/' as %2F, '?' as %3F and add '@host'",
        )
    return host, int(digits)


def _read_query(text: str, query: str) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = (_decode(text, p.replace("+", " "), "an option") for p in _split(pair))
        if not _OPTION.fullmatch(name):
            _refuse(text, "an option has no proper name", "write ?name=value&other=value")
        if name in options:
            _refuse(text, f"the option {name!r} occurs twice", "keep one of them")
        options[name] = value
    return MappingProxyType(options)


def _split(pair: str) -> tuple[str, str, str]:
    return pair.partition("=")


def _check_scheme_rules(text: str, url: BrokerURL) -> None:
    """Refuse what the grammar allows and the scheme's users certainly did not mean."""
    transport = url.transport
    if transport == "sqlite":
        if url.host or url.user is not None or url.password is not None or url.port is not None:
            _refuse(
                text,
                "SQLite has a file, not a host",
                "write sqlite:///relative.db or sqlite:////absolute/path.db",
            )
        if url.database in ("", ":memory:"):
            _refuse(
                text,
                "it names no file",
                "write sqlite:///queue.db; for a queue in memory write memory://",
            )
    if transport == "memory" and (
        url.path not in ("", "/") or url.user is not None or url.password is not None or url.port
    ):
        _refuse(text, "a memory broker has only a name", "write memory:// or memory://name")


def _read_bool(text: str) -> bool:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(word)


def _read_float(text: str) -> float:
    match = _DURATION.fullmatch(text)
    value = float(match[1]) * _UNIT_SECONDS[match[2]] if match else float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: Final[Mapping[type[Any], tuple[Callable[[str], Any], str]]] = MappingProxyType(
    {
        str: (str, "text"),
        int: (int, "a whole number"),
        bool: (_read_bool, "true or false"),
        float: (_read_float, "a number or a duration such as 30s or 250ms"),
    }
)

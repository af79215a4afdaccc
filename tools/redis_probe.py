"""Asks an address whether a Redis server lives there and lets us run scripts.

Standard library only; one blocking socket, every wait bounded by the given timeout.
"""

import socket
import ssl
from contextlib import ExitStack
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from amqp_probe import NoAnswer


def _ask(stream: BinaryIO, connection: socket.socket, *words: str) -> str:
    """Send one command; its answer as text. Raises `NoAnswer` if it is an error."""
    parts = [word.encode() for word in words]
    request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
    connection.sendall(request)
    line = stream.readline(4096).rstrip(b"\r\n")
    if line[:1] == b"-":
        raise NoAnswer(f"{words[0]}: {line[1:].decode(errors='replace')}")
    if line[:1] == b"$":
        return stream.read(int(line[1:]) + 2).decode(errors="replace")
    if line[:1] in (b"+", b":"):
        return line[1:].decode(errors="replace")
    raise NoAnswer("it does not speak the Redis protocol")


def probe(url: str, timeout: float = 5.0) -> None:
    """Log in at ``url``, select its database and run a script; raise `NoAnswer` otherwise.

    Blocks at most about ``timeout`` seconds per answer of the server.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise NoAnswer(f"{parts.scheme}:// is not a Redis url")
    database = unquote(parts.path).strip("/")
    try:
        with ExitStack() as stack:
            if parts.scheme == "unix":
                database = parse_qs(parts.query).get("db", [""])[0]
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.settimeout(timeout)
                connection.connect(unquote(parts.path))
            else:
                address = (parts.hostname or "127.0.0.1", parts.port or 6379)
                connection = stack.enter_context(socket.create_connection(address, timeout))
                if parts.scheme == "rediss":
                    context = ssl.create_default_context()
                    connection = stack.enter_context(
                        context.wrap_socket(connection, server_hostname=address[0])
                    )
            stream = stack.enter_context(connection.makefile("rb"))
            if parts.password:
                user = [unquote(parts.username)] if parts.username else []
                _ask(stream, connection, "AUTH", *user, unquote(parts.password))
            if database:
                _ask(stream, connection, "SELECT", database)
            if "maxmemory_policy:noeviction" not in _ask(stream, connection, "INFO", "memory"):
                raise NoAnswer("it evicts keys; set maxmemory-policy noeviction")
            _ask(stream, connection, "EVAL", "return redis.call('TIME')[1]", "0")
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {timeout:g} s") from error
    except (OSError, ValueError) as error:
        raise NoAnswer(str(error)) from error

"""Asks an address whether an AMQP 0-9-1 server lives there and lets us in.

An open port proves nothing: this performs the protocol's real handshake up to the opened virtual
host, so that a wrong password, a missing virtual host and a foreign server are told apart.
Standard library only; one blocking socket, every wait bounded by the given timeout.
"""

import socket
import struct
from urllib.parse import unquote, urlsplit

CONNECTION = 10
START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK, CLOSE, CLOSE_OK = 10, 11, 30, 31, 40, 41, 50, 51
METHOD_FRAME = 1
FRAME_END = 0xCE


class NoAnswer(Exception):
    """Nobody there, not AMQP, or not for us; the text is the cause in one line."""


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes([len(raw)]) + raw


def _long(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise NoAnswer(
                "it closed the connection during the handshake (wrong user or password?)"
            )
        received += piece
    return received


def _send(connection: socket.socket, method: int, arguments: bytes) -> None:
    payload = struct.pack(">HH", CONNECTION, method) + arguments
    frame = struct.pack(">BHI", METHOD_FRAME, 0, len(payload)) + payload + bytes([FRAME_END])
    connection.sendall(frame)


def _receive(connection: socket.socket, expected: int) -> bytes:
    head = _exactly(connection, 7)
    kind, _channel, size = struct.unpack(">BHI", head)
    if kind != METHOD_FRAME or size > 131_072:
        raise NoAnswer("it does not speak AMQP 0-9-1")
    payload = _exactly(connection, size + 1)[:-1]
    group, method = struct.unpack(">HH", payload[:4])
    if (group, method) == (CONNECTION, CLOSE):
        code = struct.unpack(">H", payload[4:6])[0]
        text = payload[7 : 7 + payload[6]].decode(errors="replace")
        raise NoAnswer(f"it refused: {code} {text}")
    if (group, method) != (CONNECTION, expected):
        raise NoAnswer(f"it answered method {group}.{method} instead of {CONNECTION}.{expected}")
    return payload[4:]


def _handshake(connection: socket.socket, user: str, password: str, vhost: str) -> None:
    connection.sendall(b"AMQP\x00\x00\x09\x01")
    _receive(connection, START)
    # Without this capability the server answers a wrong password by silence and a closed socket.
    capability = _short("authentication_failure_close") + b"t\x01"
    properties = _short("capabilities") + b"F" + _long(capability)
    answer = f"\0{user}\0{password}".encode()
    _send(
        connection, START_OK, _long(properties) + _short("PLAIN") + _long(answer) + _short("en_US")
    )
    limits = _receive(connection, TUNE)
    _send(connection, TUNE_OK, limits[:6] + b"\0\0")  # no heartbeat: we are gone in a moment
    _send(connection, OPEN, _short(vhost) + b"\0\0")
    _receive(connection, OPEN_OK)
    _send(connection, CLOSE, struct.pack(">H", 200) + _short("bye") + b"\0\0\0\0")
    _receive(connection, CLOSE_OK)


def probe(url: str, timeout: float = 5.0) -> None:
    """Log in at ``url`` and open its virtual host; raise `NoAnswer` if that is impossible.

    Blocks at most about ``timeout`` seconds per answer of the server. TLS urls are only checked
    for an open port.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps"):
        raise NoAnswer(f"{parts.scheme}:// is not an AMQP url")
    tls = parts.scheme == "amqps"
    address = (parts.hostname or "127.0.0.1", parts.port or (5671 if tls else 5672))
    vhost = unquote(parts.path[1:]) or "/"
    try:
        with socket.create_connection(address, timeout) as connection:
            connection.settimeout(timeout)
            if not tls:
                _handshake(
                    connection,
                    unquote(parts.username or "guest"),
                    unquote(parts.password or "guest"),
                    vhost,
                )
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {timeout:g} s") from error
    except OSError as error:
        raise NoAnswer(error.strerror or str(error)) from error

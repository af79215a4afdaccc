"""One connection to a Redis server, used by one thread: scripts and a few plain commands.

redis-py does the protocol; its connection pools, retries and health checks are left out. Whatever
goes wrong while an answer is under way ends the connection, so that no answer is ever taken for
that of another command; the next call connects anew.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from redis.exceptions import NoScriptError, RedisError, ResponseError

from queue_core.interrupt import Interrupt
from queue_core.transports.redis.errors import explain
from queue_core.transports.redis.scripts import Script
from queue_core.transports.redis.spin import Spin, spin_on

_SHORT: Final = 0.9
"""Seconds; a wait that is shorter is for somebody's deadline, and ends on time."""

_NEAR: Final = 0.02
"""Seconds by which the socket's timeout may be wrong: setting it is a call of the system."""

_LENGTHS: Final = [b"\r\n$%d\r\n" % length for length in range(100)]
"""Most words are short, and a length takes longer to write than to look up."""


class Wire(Protocol):
    """What we use of redis-py's connections, whose own types say less.

    The timeouts count for the next ``connect``; the socket, which redis-py does not give out, has
    the one that counts now, and takes commands: here they are packed already.
    """

    socket_timeout: Any
    socket_connect_timeout: Any
    _sock: Any

    def connect(self) -> None:
        """Connect and log in."""

    def disconnect(self) -> None:
        """End the connection, if there is one."""

    def can_read(self, timeout: float) -> bool:
        """Whether a part of an answer has come within ``timeout`` seconds."""

    def read_response(self) -> Any:
        """Wait for its answer."""


class Server:
    """A server, as one handle sees it.

    Attributes:
        place: which server, for errors; without a password.
    """

    def __init__(
        self,
        connection: Wire,
        place: str,
        root: bytes,
        scripts: Mapping[str, Script],
        check: Callable[[Server], None],
    ) -> None:
        """Connect at the first call, and run ``check`` on each new connection.

        Args:
            connection: not connected yet, without retries.
            place: which server, for errors.
            root: what all keys begin with.
            scripts: by name.
            check: raises if the server cannot be used; called with this object.
        """
        self.place = place
        self._connection = connection
        self._root = root
        self._scripts = scripts
        self._heads = {
            name: _lengths((b"EVALSHA", script.digest, b"1", root))
            for name, script in scripts.items()
        }
        self._check = check
        self._ready = False
        self._spin: Spin | None = None
        self._patience: float = connection.socket_timeout
        self._connecting: float = connection.socket_connect_timeout
        self._until = math.inf
        self._set = 0.0  # the socket's timeout

    def expect_by(self, until: float) -> None:
        """See `Punctual.expect_by`."""
        self._until = until

    def connect(self) -> None:
        """Connect and check, unless it has been done.

        Raises:
            AccessRefused, ConfigError, ConnectionLost, StoreCorrupt: see `errors`.
        """
        if self._ready:
            return
        wire, until = self._connection, self._until
        try:
            left = min(self._patience, self._connecting, self._left())
            self._until = min(until, time.monotonic() + left)
            self._set = wire.socket_timeout = wire.socket_connect_timeout = left
            wire.connect()  # waits for the answers to login and database too
            self._ready = True
            self._check(self)
            self._until = until
            self._limit()
            self._spin = spin_on(wire._sock)
        except (RedisError, OSError) as error:
            self.close()
            raise explain(error, self.place, "connect") from error
        except BaseException:
            self.close()
            raise
        finally:
            self._until = until

    def patience(self) -> float:
        """Return the seconds after which an answer that is asked for now is given up."""
        return min(self._patience, self._until - time.monotonic())

    def _left(self) -> float:
        """Return the seconds that are left for an answer. Raises TimeoutError."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("its caller's time was over")
        return left

    def _limit(self) -> None:
        """Give the socket the time that is left for an answer. Raises TimeoutError."""
        left = min(self._patience, self._left())
        if abs(left - self._set) > _NEAR:
            self._set = left
            self._connection._sock.settimeout(left)

    def run(self, name: str, *words: bytes) -> Any:
        """Run a script and return its answer; blocks for one round trip, two for the first time."""
        try:
            return self._call(self._evalsha(name, words))
        except NoScriptError:
            pass
        except (RedisError, OSError) as error:
            raise explain(error, self.place, f"EVALSHA, {name}") from error
        try:
            text = self._scripts[name].text
            return self._call(_packed((b"EVAL", text, b"1", self._root, *words)))
        except (RedisError, OSError) as error:
            raise explain(error, self.place, f"EVAL, {name}") from error

    def command(self, *words: bytes | str) -> Any:
        """Run a plain command and return its answer."""
        try:
            return self._call(
                _packed([word.encode() if isinstance(word, str) else word for word in words])
            )
        except (RedisError, OSError) as error:
            raise explain(error, self.place, str(words[0])) from error

    def key(self, name: str) -> bytes:
        """Return the whole key of this name."""
        return self._root + name.encode()

    def wait(
        self,
        names: Sequence[str],
        seconds: float,
        interrupt: Interrupt,
        end_wait: Callable[[], None],
        script: str,
        then: bytes,
        before: bytes | None,
    ) -> tuple[Any, Any]:
        """Block until there is something in one of the lists ``names``, and take it out.

        Waits at most ``seconds`` (0 to 2). A connection that is blocked in BLPOP takes no other
        command: ``end_wait`` makes the first of the lists grow through another one. The script runs
        with the plan ``before``, if there is one, at once, and with ``then`` as soon as the wait is
        over: all in one round trip. Returns its answers, the first one None without ``before``.
        """
        plans = [then] if before is None else [before, then]
        commands = [self._evalsha(script, (plan,)) for plan in plans]
        commands.insert(
            -1, _packed((b"BLPOP", *map(self.key, names), b"%.3f" % max(0.001, seconds)))
        )
        try:
            self.connect()
            self._limit()
            self._connection._sock.sendall(b"".join(commands))
            answers = [] if before is None else [self._read_script()]
            if before is None or not self._has_answer():
                self._listen(interrupt, end_wait, seconds)
            self._limit()
            self._connection.read_response()
            answers.append(self._read_script())
        except (RedisError, OSError) as error:
            self.close()  # there may be one more answer
            raise explain(error, self.place, "BLPOP") from error
        except BaseException:
            self.close()
            raise
        answers = [
            self.run(script, plan) if answer is None else answer
            for plan, answer in zip(plans, answers, strict=True)
        ]
        return None if before is None else answers[0], answers[-1]

    def _listen(self, interrupt: Interrupt, end_wait: Callable[[], None], seconds: float) -> None:
        """Block until there is an answer to read, or the server is silent for long.

        A server looks ten times a second which waits are over. So a short one is ended like one
        that is interrupted; a consumer with nothing to do waits for longer, and need not be exact.
        """
        answers: socket.socket = self._connection._sock
        silence = answers.gettimeout() or math.inf
        patience = seconds if seconds < _SHORT else math.inf
        until = time.monotonic() + min(patience, silence)
        while not interrupt.requested and (left := until - time.monotonic()) > 0:
            if interrupt.wait(left, answers.fileno()):
                return
        if patience < silence or interrupt.requested:
            end_wait()  # else reading tells what silence means

    def _evalsha(self, name: str, words: Sequence[bytes]) -> bytes:
        return b"*%d%b%b\r\n" % (len(words) + 4, self._heads[name], _lengths(words))

    def _read_script(self) -> Any:
        """Return a script's answer; None if the server does not know it, and has done nothing."""
        try:
            return self._connection.read_response()
        except NoScriptError:
            return None

    def _has_answer(self) -> bool:
        """Whether a part of an answer is there; a poll does not see what came with another one."""
        sock = self._connection._sock
        patience = sock.gettimeout()
        found = self._connection.can_read(0)
        sock.settimeout(patience)  # redis-py's own parser leaves the one of `connect`
        return found

    def close(self) -> None:
        """End the connection. May be called twice."""
        self._ready = False
        self._spin = None
        self._connection.disconnect()

    def _call(self, command: bytes) -> Any:
        if not self._ready:
            self.connect()
        wire = self._connection
        try:
            self._limit()
            wire._sock.sendall(command)
            if self._spin is not None:
                self._spin.wait()
            return wire.read_response()
        except ResponseError:
            raise  # an answer like any other
        except BaseException:
            self.close()
            raise


def _packed(words: Sequence[bytes]) -> bytes:
    """Return a command in Redis's protocol; redis-py's own packing takes three times as long."""
    return b"*%d%b\r\n" % (len(words), _lengths(words))


def _lengths(words: Sequence[bytes]) -> bytes:
    """Return the words, each with the end of the line before it and with its length."""
    parts = []
    for word in words:
        length = len(word)
        parts.append(_LENGTHS[length] if length < len(_LENGTHS) else b"\r\n$%d\r\n" % length)
        parts.append(word)
    return b"".join(parts)

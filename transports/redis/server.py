"""One connection to a Redis server, used by one thread: scripts and a few plain commands.

redis-py does the protocol; its connection pools, retries and health checks are left out. Whatever
goes wrong while an answer is under way ends the connection, so that no answer is ever taken for
that of another command; the next call connects anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError, RedisError, ResponseError

from queue_core.transports.redis.bell import Bell
from queue_core.transports.redis.errors import explain
from queue_core.transports.redis.scripts import Script


class Wire(Protocol):
    """What we use of redis-py's connections, whose own types say less.

    The timeouts count for the next ``connect``; the socket, which redis-py does not give out, has
    the one that counts now.
    """

    socket_timeout: Any
    socket_connect_timeout: Any
    _sock: Any

    def connect(self) -> None:
        """Connect and log in."""

    def disconnect(self) -> None:
        """End the connection, if there is one."""

    def send_command(self, *words: bytes | str | float, check_health: bool) -> None:
        """Send one command."""

    def pack_command(self, *words: bytes | str | float) -> Sequence[bytes]:
        """Return the bytes of one command."""

    def send_packed_command(self, command: Sequence[bytes], check_health: bool) -> None:
        """Send bytes."""

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
        self._check = check
        self._ready = False

    def connect(self) -> None:
        """Connect and check, unless it has been done.

        Raises:
            AccessRefused, ConfigError, ConnectionLost, StoreCorrupt: see `errors`.
        """
        if self._ready:
            return
        wire = self._connection
        patience = wire.socket_timeout
        wire.socket_timeout = min(patience, wire.socket_connect_timeout)
        try:
            wire.connect()  # waits for the answers to login and database too
            self._ready = True
            self._check(self)
            wire._sock.settimeout(patience)
        except (RedisError, OSError) as error:
            self.close()
            raise explain(error, self.place, "connect") from error
        except BaseException:
            self.close()
            raise
        finally:
            wire.socket_timeout = patience

    def run(self, name: str, plan: bytes, *more: bytes) -> Any:
        """Run a script and return its answer; blocks for one round trip, two for the first time."""
        script = self._scripts[name]
        try:
            return self._call(b"EVALSHA", script.digest, b"1", self._root, plan, *more)
        except NoScriptError:
            pass
        except (RedisError, OSError) as error:
            raise explain(error, self.place, f"EVALSHA, {name}") from error
        try:
            return self._call(b"EVAL", script.text, b"1", self._root, plan, *more)
        except (RedisError, OSError) as error:
            raise explain(error, self.place, f"EVAL, {name}") from error

    def command(self, *words: bytes | str | float) -> Any:
        """Run a plain command and return its answer."""
        try:
            return self._call(*words)
        except (RedisError, OSError) as error:
            raise explain(error, self.place, str(words[0])) from error

    def key(self, name: str) -> bytes:
        """Return the whole key of this name."""
        return self._root + name.encode()

    def wait(
        self, names: Sequence[str], seconds: float, bell: Bell, then: tuple[str, bytes] | None
    ) -> tuple[bool, Any]:
        """Block until there is something in one of the lists ``names``, and take it out.

        Waits at most ``seconds`` (0 to 2); the bell ends it if it makes the list of ``names`` grow
        that it is for. With ``then``, the name and plan of a script, the server runs that as soon
        as the wait is over, without a round trip in between.

        Returns whether there was something, and the answer of ``then`` (None without it).
        """
        words: list[bytes | str] = [b"BLPOP", *map(self.key, names), f"{max(0.001, seconds):.3f}"]
        try:
            self.connect()
            packed = [*self._connection.pack_command(*words)]
            if then is not None:
                script = self._scripts[then[0]]
                packed += self._connection.pack_command(
                    b"EVALSHA", script.digest, b"1", self._root, then[1]
                )
            self._connection.send_packed_command([b"".join(packed)], check_health=False)
            bell.listen(self._connection)
            found = self._connection.read_response() is not None
            answer = None if then is None else self._connection.read_response()
        except NoScriptError:
            assert then is not None, "there is no script in a BLPOP"
            return found, self.run(*then)
        except (RedisError, OSError) as error:
            self.close()  # there may be one more answer
            raise explain(error, self.place, "BLPOP") from error
        except BaseException:
            self.close()
            raise
        return found, answer

    def close(self) -> None:
        """End the connection. May be called twice."""
        self._ready = False
        self._connection.disconnect()

    def _call(self, *words: bytes | str | float) -> Any:
        self.connect()
        try:
            self._connection.send_command(*words, check_health=False)
            return self._connection.read_response()
        except ResponseError:
            raise  # an answer like any other
        except BaseException:
            self.close()
            raise

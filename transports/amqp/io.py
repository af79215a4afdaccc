"""One TCP connection to the broker, and the one thread that serves it.

pika's `SelectConnection` runs in that thread and nothing else touches it, but for `Link.write`,
which sends whole frames from the calling thread while the socket takes them: a hand-over costs more
than a send. For everything else other threads hand work over through a deque and one wake-up, and
wait with a deadline; what the work writes leaves in one send. Heartbeats are thus served while user
code blocks.

The rules: a link is used once; when its connection or its loop ends, for whatever reason (an
exception in a callback included), everybody who waits gets the reason, later calls raise it, and
the thread ends. Nothing reconnects here. ``close`` is bounded even if the broker does not answer.
A forked child calls ``abandon`` and nothing else: a regular close would send a goodbye in the
parent's name.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AMQPHeartbeatTimeout,
    ConnectionClosedByClient,
    ConnectionWrongStateError,
)

from queue_core.errors import BrokerFull, ConnectionLost, ConnectTimeout, QueueCoreError
from queue_core.transports.amqp.burst import BurstConnection
from queue_core.transports.amqp.errors import translate, translate_connect
from queue_core.transports.amqp.options import Settings

logger = logging.getLogger(__name__)

_AWAKE = 1.5
"""Intervals of heartbeats after which a broker may have given a silent process up: it does at 2."""
_CATCH_UP = 0.05
"""Seconds for reading what came while the process stood still: many turns of the loop."""
_TURN = 500
_GRACE = 1.0
_SILENT_INTERVALS = 3

Work = Callable[["Future[Any]"], None]


class Link:
    """A connection and its thread. Its methods are for all other threads, unless they say."""

    def __init__(
        self,
        settings: Settings,
        label: str,
        *,
        on_lost: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Prepare; ``label`` is for people; ``on_lost`` is called in the I/O thread at the end."""
        self.label = label
        self.where = settings.where
        self._settings = settings
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._inbox: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._closing = False
        self._grace = _GRACE
        self._ended: BaseException | None = None
        self._opened: Future[None] = Future()
        self._unblocked = threading.Event()
        self._unblocked.set()
        self._connection: BurstConnection | None = None
        self._awake_until = math.inf
        self.on_end: set[Callable[[BaseException], None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"queue-core-{label}", daemon=True)

    # lifecycle

    def open(self, timeout: float) -> None:
        """Start the thread and wait until the broker let us in, at most ``timeout`` seconds.

        Raises:
            AccessRefused, ConnectionLost, ConnectTimeout: the thread has ended or is ending.
        """
        settings = self._settings
        self._thread.start()
        try:
            self._opened.result(min(timeout, settings.connect_timeout))
        except Exception as error:
            self.close(0.5)
            raise translate_connect(error, settings.where, settings.vhost, settings.user) from error

    @property
    def ended(self) -> bool:
        """The connection is over."""
        return self._ended is not None

    @property
    def awake(self) -> bool:
        """The I/O thread has had its turn lately, so that the broker has had its heartbeats."""
        return monotonic() < self._awake_until

    @property
    def connection(self) -> BurstConnection:
        """The connection, for use in the I/O thread."""
        assert self._connection is not None
        return self._connection

    def close(self, timeout: float) -> None:
        """Say goodbye and wait for the thread's end, at most ``timeout`` seconds, about.

        A peer that does not answer is cut off. May be called twice.
        """
        if self._thread.ident is None:
            self._ended = self._ended or ConnectionLost("it was never opened")
            return
        self._grace = min(timeout / 2, _GRACE)
        self._closing = True
        if self._ended is None and (connection := self._connection) is not None:
            connection.ioloop.add_callback_threadsafe(self._say_goodbye)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: let go of the inherited socket for good. Takes no lock."""
        self._ended = ConnectionLost(f"the {self.label} connection belongs to the parent process")
        connection = self._connection
        if connection is not None:
            connection.detach()

    def cut(self) -> None:
        """Drop the connection without a word, as the end of the process would."""
        connection = self._connection
        if connection is not None:
            connection.shutdown()

    # work

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done in the I/O thread soon, in the order of submission; does not wait.

        Raises:
            ConnectionLost: the connection is over, and ``work`` will not be done.
        """
        if self._ended is not None:
            raise self.failure("use")
        self._inbox.append(work)
        if not self._scheduled:
            self._schedule()
        if self.ended:
            # It ended between the check and the append: whoever takes the work out decides.
            with contextlib.suppress(ValueError):
                self._inbox.remove(work)
                raise self.failure("use")

    def write(self, data: bytes) -> None:
        """Send whole frames, from this thread if the socket takes them; in the order of the calls.

        Does not wait. What goes wrong ends the connection.
        """
        if self.connection.write(data):
            self.submit(self.connection.flush)

    def call(self, work: Work, deadline: float, doing: str, method: str = "") -> Any:
        """Have ``work(future)`` done in the I/O thread and return what the future is given.

        ``deadline`` is a point of `time.monotonic`. An exception of ``work`` itself counts as its
        answer. ``doing`` and ``method`` are for `errors.translate`.

        Raises:
            ConnectTimeout: no answer by the deadline. Others as `errors.translate` says.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.add(future)
        try:
            self.submit(partial(_start, work, future))
            return future.result(max(0.0, deadline - monotonic()))
        except TimeoutError as error:
            raise ConnectTimeout(
                f"{doing}: no answer from the broker at {self.where} in time"
            ) from error
        except Exception as error:
            raise translate(error, doing, method) from error
        finally:
            with self._lock:
                self._waiting.discard(future)

    def failure(self, doing: str) -> QueueCoreError:
        """Return the error that tells why the link is over."""
        ended = self._ended or ConnectionLost("it is not open")
        return translate(ended, f"{doing}: {self.label} connection to {self.where}")

    def wait_unblocked(self, deadline: float) -> None:
        """Return when the broker takes messages; raise BrokerFull if not by the deadline."""
        if not self._unblocked.is_set() and not self._unblocked.wait(
            max(0.0, deadline - monotonic())
        ):
            raise BrokerFull(
                f"the broker at {self.where} takes no messages now (memory or disk alarm); "
                "consumers can still drain it"
            )

    @property
    def blocked(self) -> bool:
        """The broker said that it takes no messages now."""
        return not self._unblocked.is_set()

    # the I/O thread

    def _run(self) -> None:
        cause: BaseException = ConnectionClosedByClient(200, "closed")
        try:
            connection = BurstConnection(
                self._settings.parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_end,
                on_close_callback=self._on_end,
            )
            self._connection = connection
            connection.add_on_connection_blocked_callback(self._on_blocked)
            connection.add_on_connection_unblocked_callback(self._on_unblocked)
            if self._closing:
                self._say_goodbye()
            connection.ioloop.start()
        except BaseException as error:
            # Whatever it is, to everybody else it is the end of the connection.
            found = f"{type(error).__name__}: {error}"
            cause = error if isinstance(error, AMQPError) else AMQPConnectionError(found)
        finally:
            self._finish(cause)

    def _on_open(self, connection: Any) -> None:
        answer(self._opened, None)
        if connection.params.heartbeat:
            self._watch(connection, connection.params.heartbeat / 2, connection.bytes_received, 0)

    def _watch(self, connection: BurstConnection, interval: float, seen: int, silent: int) -> None:
        """Give the broker up when it was silent for two heartbeats; pika alone takes longer.

        It counts intervals, so that a pause of this process is not taken for one of the broker.
        """
        self._awake_until = monotonic() + _AWAKE * connection.params.heartbeat

        def look(*, caught_up: bool = False) -> None:
            if not self.awake and not caught_up:
                # It stood still. What the broker said meanwhile, a goodbye perhaps, is read first.
                connection.ioloop.call_later(_CATCH_UP, partial(look, caught_up=True))
            elif connection.bytes_received != seen:
                self._watch(connection, interval, connection.bytes_received, 0)
            elif silent < _SILENT_INTERVALS:
                self._watch(connection, interval, seen, silent + 1)
            else:
                connection.give_up(AMQPHeartbeatTimeout("silent for two heartbeats"))

        connection.ioloop.call_later(interval, look)

    def _on_end(self, connection: Any, error: BaseException) -> None:
        self._ended = self._ended or error
        connection.ioloop.stop()

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        self._unblocked.clear()
        logger.warning(
            "the broker at %s takes no messages now (%s); publishing waits, consumers go on",
            self.where,
            frame.method.reason,
        )

    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self._unblocked.set()
        logger.info("the broker at %s takes messages again", self.where)

    def _schedule(self) -> None:
        self._scheduled = True
        try:
            self.connection.ioloop.add_callback_threadsafe(self._drain)
        except BaseException:  # Ctrl-C, say: the next one must not rely on this wake-up
            self._scheduled = False
            raise

    def _drain(self) -> None:
        self._scheduled = False
        self.connection.burst(self._do_some)
        if self._inbox and not self._scheduled:
            self._schedule()

    def _do_some(self) -> None:
        for _ in range(_TURN):
            if not self._inbox:
                return
            self._inbox.popleft()()

    def _say_goodbye(self) -> None:
        connection = self.connection
        self._drain()
        if connection.is_closed:
            connection.ioloop.stop()
        elif not connection.is_closing:
            connection.close()
            connection.ioloop.call_later(
                self._grace, partial(connection.give_up, ConnectionWrongStateError("no goodbye"))
            )

    def _finish(self, cause: BaseException) -> None:
        """Tell everybody that it is over, and give the thread's resources back."""
        self._ended = ended = self._ended or cause
        connection = self._connection
        with self._lock:
            waiting = [self._opened, *self._waiting]
        for future in waiting:
            fail(future, ended)
        self._unblocked.set()
        for tell in list(self.on_end):
            tell(ended)
        while self._inbox:
            with contextlib.suppress(Exception):
                self._inbox.popleft()()
        if connection is not None:
            connection.detach()
            with contextlib.suppress(Exception):
                connection.ioloop.close()
        if self._on_lost is not None:
            self._on_lost(ended)


def _start(work: Work, future: Future[Any]) -> None:
    try:
        work(future)
    except Exception as error:
        fail(future, error)


def answer(future: Future[Any], value: Any) -> None:
    """Give the future its answer unless it has one."""
    if not future.done():
        future.set_result(value)


def fail(future: Future[Any], error: BaseException) -> None:
    """Give the future an error unless it has its answer."""
    if not future.done():
        future.set_exception(error)

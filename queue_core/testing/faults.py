"""A TCP proxy that breaks connections on purpose.

It stands between a client and a broker on 127.0.0.1 and can delay, stall, reset, cut after so many
bytes, or refuse. Point the transport under test at ``proxy.port`` instead of the broker's::

    with FaultProxy("127.0.0.1", 5672, seed=1) as proxy:
        connection = Connection(f"amqp://guest:guest@127.0.0.1:{proxy.port}/")
        proxy.reset()             # every open connection ends with a TCP reset; new ones pass
        proxy.stall()             # everything is accepted, nothing is answered
        proxy.heal()

One thread does all the work. A method returns when what it asks for is in force, at most a few
milliseconds later. What is random (jitter, the place of a cut) comes from ``seed``.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, Self

Direction = Literal["up", "down", "both"]

_CHUNK = 64 * 1024
_ROOM = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ANSWER_WITHIN = 10.0


class _Flow:
    """One direction of a link: what was read from ``source`` and is not yet written to ``sink``."""

    def __init__(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        self.source = source
        self.sink = sink
        self.direction = direction
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.last_due = 0.0
        self.read_all = False
        self.written_all = False

    def add(self, due: float, data: bytes) -> None:
        self.last_due = max(self.last_due, due)
        self.waiting.append((self.last_due, data))
        self.size += len(data)


class _Link:
    """One client's connection and its way on to the broker."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client = client
        self.broker = broker
        self.connected = False
        self.flows = (_Flow(client, broker, "up"), _Flow(broker, client, "down"))
        self.budget: int | None = None


class FaultProxy:
    """Forwards TCP connections to ``host:port``, as faithfully as the current mode says.

    It listens on 127.0.0.1 on a port of its own from ``start`` to ``stop``. Thread-safe.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self._target = (host, port)
        self._random = random.Random(seed)
        self._listener: socket.socket | None = None
        self._port = 0
        self._links: set[_Link] = set()
        self._accepted = 0
        self._stalled = False
        self._delay = (0.0, 0.0)
        self._cut: tuple[int, int, Direction] | None = None
        self._cuts_left: int | None = None
        self._orders: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._waker, self._wakened = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # life

    def start(self) -> Self:
        """Listen, and forward from now on. Does not block."""
        if self._thread is None and not self._stopping:
            self._listen()
            self._wakened.setblocking(False)
            self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection and end the thread; blocks until it is so. May be called twice."""
        self._stopping = True
        self._wake()
        if self._thread is not None:
            self._thread.join(_ANSWER_WITHIN)
        for link in list(self._links):
            self._end(link, reset=True)
        for end in (self._listener, self._waker, self._wakened):
            if end is not None:
                end.close()
        self._selector.close()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens; the same for its whole life."""
        return self._port

    @property
    def connections(self) -> int:
        """How many connections are open through it now."""
        return len(self._links)

    @property
    def accepted(self) -> int:
        """How many connections it has accepted so far."""
        return self._accepted

    # modes

    def heal(self) -> None:
        """Pass everything on faithfully, what was held back first."""
        self._order(self._heal)

    def delay(self, seconds: float, *, jitter: float = 0.0) -> None:
        """Hold each piece of data back for ``seconds`` plus up to ``jitter``; order is kept."""

        def apply() -> None:
            self._heal()
            self._delay = (seconds, jitter)

        self._order(apply)

    def stall(self) -> None:
        """Accept connections and move not one byte, until another mode is set."""

        def apply() -> None:
            self._heal()
            self._stalled = True

        self._order(apply)

    def reset(self) -> int:
        """End every open connection with a TCP reset, then pass; return how many there were."""
        ended: list[int] = []

        def apply() -> None:
            self._heal()
            ended.append(len(self._links))
            for link in list(self._links):
                self._end(link, reset=True)

        self._order(apply)
        return sum(ended)

    def cut_after(
        self,
        count: int,
        *,
        up_to: int | None = None,
        direction: Direction = "both",
        times: int | None = None,
    ) -> None:
        """Reset each connection, open or new, after exactly ``count`` more bytes were passed on.

        Args:
            count: bytes in ``direction``; 0 cuts at the first byte.
            up_to: draw each connection's count from ``count`` to ``up_to``.
            direction: ``up`` counts what the client sends, ``down`` what the broker sends.
            times: connections to cut; then everything passes. None: every one.
        """

        def apply() -> None:
            self._heal()
            self._cut = (count, count if up_to is None else up_to, direction)
            self._cuts_left = times
            for link in self._links:
                self._set_budget(link)

        self._order(apply)

    def refuse(self, *, reset: bool = False) -> None:
        """Refuse new connections, as when nobody listens.

        Open ones go on, or end with a TCP reset: then it looks like a broker that was killed.
        """

        def apply() -> None:
            self._heal()
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
            # A bound socket that does not listen refuses, and keeps the port for us.
            self._listener = self._bound()
            if reset:
                for link in list(self._links):
                    self._end(link, reset=True)

        self._order(apply)

    # orders from other threads

    def _order(self, apply: Callable[[], object]) -> None:
        if self._thread is None or self._stopping:
            raise RuntimeError("the fault proxy is not running")
        done = threading.Event()
        self._orders.append((apply, done))
        self._wake()
        if not done.wait(_ANSWER_WITHIN):
            raise RuntimeError("the fault proxy does not answer")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def _heal(self) -> None:
        self._stalled = False
        self._delay = (0.0, 0.0)
        self._cut = None
        now = time.monotonic()
        for link in self._links:
            link.budget = None
            for flow in link.flows:
                flow.waiting = deque((min(due, now), data) for due, data in flow.waiting)
                flow.last_due = 0.0
        if self._listener is None or not _listens(self._listener):
            self._listen()

    # the loop

    def _run(self) -> None:
        self._selector.register(self._wakened, selectors.EVENT_READ)
        while not self._stopping:
            self._watch()
            for key, events in self._selector.select(self._pause()):
                if key.fileobj is self._wakened:
                    with contextlib.suppress(BlockingIOError):
                        self._wakened.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._links:
                    self._move(key.data, key.fileobj, events)
            while self._orders:
                apply, done = self._orders.popleft()
                apply()
                done.set()

    def _pause(self) -> float | None:
        """Return how long nothing is due, in seconds."""
        if self._stalled:
            return None
        dues = [flow.waiting[0][0] for link in self._links for flow in link.flows if flow.waiting]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _watch(self) -> None:
        """Tell the selector what each socket waits for."""
        now = time.monotonic()
        for link in self._links:
            for end, other in ((link.flows[0], link.flows[1]), (link.flows[1], link.flows[0])):
                wanted = 0
                if not self._stalled and link.connected:
                    if not end.read_all and end.size < _ROOM:
                        wanted |= selectors.EVENT_READ
                    if other.waiting and other.waiting[0][0] <= now:
                        wanted |= selectors.EVENT_WRITE
                elif not link.connected and end.source is link.broker:
                    wanted = selectors.EVENT_WRITE
                self._register(end.source, wanted, link)

    def _register(self, end: socket.socket, wanted: int, link: _Link) -> None:
        known = self._selector.get_map().get(end)
        if known is None and wanted:
            self._selector.register(end, wanted, link)
        elif known is not None and not wanted:
            self._selector.unregister(end)
        elif known is not None and known.events != wanted:
            self._selector.modify(end, wanted, link)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self._accepted += 1
        broker = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for end in (client, broker):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.connect_ex(self._target)
        link = _Link(client, broker)
        self._set_budget(link)
        self._links.add(link)

    def _move(self, link: _Link, end: object, events: int) -> None:
        """Read and write what can be, and end the link when it is over."""
        try:
            if not link.connected:
                if error := link.broker.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, "cannot reach the broker")
                link.connected = True
                return
            for flow in link.flows:
                if flow.source is end and events & selectors.EVENT_READ:
                    self._read(flow)
                if flow.sink is end and events & selectors.EVENT_WRITE:
                    if not self._write(link, flow):
                        return
                if flow.read_all and not flow.waiting and not flow.written_all:
                    flow.written_all = True
                    flow.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(link, reset=True)
            return
        if all(flow.written_all for flow in link.flows):
            self._end(link, reset=False)

    def _read(self, flow: _Flow) -> None:
        try:
            data = flow.source.recv(_CHUNK)
        except BlockingIOError:
            return
        if not data:
            flow.read_all = True
            return
        seconds, jitter = self._delay
        flow.add(time.monotonic() + seconds + self._random.uniform(0.0, jitter), data)

    def _write(self, link: _Link, flow: _Flow) -> bool:
        """Write what is due; return False if that was the last that the link may do."""
        counted = self._cut is not None and self._cut[2] in ("both", flow.direction)
        while flow.waiting and flow.waiting[0][0] <= time.monotonic():
            due, data = flow.waiting[0]
            allowed = len(data)
            if counted and link.budget is not None:
                allowed = min(allowed, link.budget)
            try:
                sent = flow.sink.send(data[:allowed]) if allowed else 0
            except BlockingIOError:
                return True
            flow.size -= sent
            if sent == len(data):
                flow.waiting.popleft()
            else:
                flow.waiting[0] = (due, data[sent:])
            if counted and link.budget is not None:
                link.budget -= sent
                if link.budget <= 0:
                    self._end(link, reset=True)
                    self._count_cut()
                    return False
            if sent < allowed:
                return True
        return True

    def _count_cut(self) -> None:
        if self._cuts_left is not None:
            self._cuts_left -= 1
            if self._cuts_left <= 0:
                self._heal()

    def _set_budget(self, link: _Link) -> None:
        if self._cut is not None:
            link.budget = self._random.randint(self._cut[0], self._cut[1])

    def _end(self, link: _Link, *, reset: bool) -> None:
        self._links.discard(link)
        for end in (link.client, link.broker):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
            if reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()

    def _bound(self) -> socket.socket:
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind(("127.0.0.1", self._port))
        self._port = end.getsockname()[1]
        return end

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = self._bound()
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)


def _listens(end: socket.socket) -> bool:
    return bool(end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
